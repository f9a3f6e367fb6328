//! The exporter of Postgres' statistics to Prometheus that Debian has, with the queries of this project.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::cluster::free_port;
use crate::database::Database;
use crate::run;
use crate::wait::eventually;

const PROGRAM: &str = "prometheus-postgres-exporter";

const START_WITHIN: Duration = Duration::from_secs(20);

/// The exporter; ended when it is dropped.
pub struct Exporter {
    process: Child,
    url: String,
}

/// What the exporter says at one moment.
pub struct Scrape {
    samples: Vec<Sample>,
    /// Whether a metric is a `counter`, a `gauge`, a `histogram`, by its name.
    types: BTreeMap<String, String>,
}

/// One value of one metric.
#[derive(Debug, PartialEq)]
pub struct Sample {
    /// The metric's name, that of a part of a histogram with its ending.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

impl Exporter {
    /// Starts the exporter, connected to `database` as `role`.
    pub fn start(database: &Database, role: &str) -> Exporter {
        let port = free_port();
        let source = format!(
            "host=127.0.0.1 port={} user={role} dbname={} sslmode=disable",
            database.cluster().address().1,
            database.name(),
        );
        let process = Command::new(program())
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg(format!(
                "--extend.query-path={}",
                project()
                    .join("monitoring/postgres_exporter.yaml")
                    .display()
            ))
            .arg("--log.level=error")
            .env_clear()
            .env("DATA_SOURCE_NAME", source)
            // Where the reaper finds it.
            .current_dir(run::directory())
            .stdin(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {PROGRAM}: {error}"));
        let exporter = Exporter {
            process,
            url: format!("http://127.0.0.1:{port}/metrics"),
        };
        eventually(
            "the exporter answers",
            START_WITHIN,
            || {
                exporter
                    .try_scrape()
                    .map(drop)
                    .map_err(|error| error.to_string())
            },
            Result::is_ok,
        )
        .unwrap_or_default();
        exporter
    }

    /// What it says now.
    pub fn scrape(&self) -> Scrape {
        self.try_scrape()
            .unwrap_or_else(|error| panic!("{}: {error}", self.url))
    }

    fn try_scrape(&self) -> Result<Scrape, ureq::Error> {
        let mut answer = ureq::get(&self.url).call()?;
        let text = answer.body_mut().read_to_string()?;
        let (comments, samples): (Vec<&str>, Vec<&str>) =
            text.lines().partition(|line| line.starts_with('#'));
        let types = comments
            .iter()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        Ok(Scrape {
            samples: samples.into_iter().map(Sample::parse).collect(),
            types: types
                .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
                .collect(),
        })
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Scrape {
    /// All values whose metric's name begins like that.
    pub fn named(&self, beginning: &str) -> Vec<&Sample> {
        let samples = self.samples.iter();
        samples
            .filter(|sample| sample.name.starts_with(beginning))
            .collect()
    }

    /// Names and types of the metrics whose name begins like that.
    pub fn types(&self, beginning: &str) -> Vec<(&str, &str)> {
        let types = self.types.iter();
        types
            .map(|(name, kind)| (name.as_str(), kind.as_str()))
            .filter(|(name, _)| name.starts_with(beginning))
            .collect()
    }

    /// The one value of a metric with these labels, among others.
    #[track_caller]
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let mut samples = self.named(name);
        samples.retain(|sample| sample.name == name && sample.has(labels));
        assert_eq!(samples.len(), 1, "{name} {labels:?}: {samples:#?}");
        samples[0].value
    }
}

impl Sample {
    fn has(&self, labels: &[(&str, &str)]) -> bool {
        let is_there = |(name, value): &(&str, &str)| {
            self.labels.get(*name).is_some_and(|found| found == value)
        };
        labels.iter().all(is_there)
    }

    /// A line such as `name{label="value"} 1`. No value here has quotes in it.
    fn parse(line: &str) -> Sample {
        let (metric, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        let (name, labels) = metric.split_once('{').unwrap_or((metric, "}"));
        let mut parts = labels.trim_end_matches('}').split('"');
        let mut labels = BTreeMap::new();
        while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
            let name = name.trim_start_matches(',').trim_end_matches('=');
            labels.insert(name.to_owned(), value.to_owned());
        }
        Sample {
            name: name.to_owned(),
            labels,
            value: value.parse().unwrap_or_else(|_| panic!("{line}")),
        }
    }
}

/// A file of this project, as the tests' own folder finds it.
pub fn project() -> &'static Path {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("tests/ lies in the project")
}

fn program() -> PathBuf {
    let ours = project().join(".exporter").join(PROGRAM);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = std::env::split_paths(&path).map(|folder| folder.join(PROGRAM));
    [ours]
        .into_iter()
        .chain(installed)
        .find(|program| program.is_file())
        .unwrap_or_else(|| panic!("no {PROGRAM}: run scripts/setup/postgres-exporter"))
}
