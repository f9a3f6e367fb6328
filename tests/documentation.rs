//! What README and docs tell their readers to run does run.
//!
//! Each page has a server of its own, and one superuser's session in which its blocks of SQL run in their order, as if
//! a reader pasted one after the other. The queue of its examples is there, behind `user_logins_sqs.endpoint_url`.
//! Blocks of shell commands run in an empty directory, with Postgres' programs in the path.
//!
//! Words after the language of a block (```` ```sql fresh ````), which readers do not see, say otherwise:
//!
//! - `needs=aws`: it needs AWS, so it does not run
//! - `needs=machine`: it changes the machine that it runs on (packages, clusters, releases), so it does not run
//! - `tested=FILE`: that script or file of tests runs it
//! - `fresh`: the extension is dropped first, since the block creates it
//! - `as=ROLE`: it runs as that role
//! - `on=SERVER`: of several servers that a procedure names, it runs on this one

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tests::cluster::{Cluster, Plan};
use tests::database::{Database, Session, show};
use tests::document::{Block, Document, project};
use tests::logins;
use tests::run;
use tests::scripted::ScriptedSqs;

/// What a page's blocks find: what the page takes for granted.
struct Page {
    path: &'static str,
    setup: &'static str,
}

const PAGES: [Page; 7] = [
    Page {
        path: "README.md",
        setup: "CREATE EXTENSION pg_cron",
    },
    Page {
        path: "docs/coming-from-the-script.md",
        setup: "INSERT INTO user_logins (user_id, create_date) VALUES ('from the script', '2026-01-01')",
    },
    Page {
        path: "docs/many-servers.md",
        setup: "",
    },
    Page {
        path: "docs/monitoring.md",
        setup: "",
    },
    Page {
        path: "docs/operations.md",
        setup: "CREATE ROLE login_ingest LOGIN",
    },
    Page {
        path: "docs/packages.md",
        setup: "",
    },
    Page {
        path: "docs/security.md",
        setup: "CREATE ROLE privacy_officer LOGIN",
    },
];

/// A page's server, session and directory.
struct Reader {
    page: PathBuf,
    cluster: Cluster,
    session: Session,
    directory: PathBuf,
    has_pg_cron: bool,
    _sqs: ScriptedSqs,
}

impl Reader {
    fn of(page: &Page) -> Reader {
        let sqs = ScriptedSqs::start();
        sqs.queue_named("login-queue").send(&logins::good(50));
        let has_pg_cron = Database::existing(Cluster::shared(), "postgres")
            .connect()
            .number("SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_cron'")
            > 0;
        let libraries = if has_pg_cron {
            "pg_cron,user_logins_sqs"
        } else {
            "user_logins_sqs"
        };
        let cluster = Plan::default()
            .setting("shared_preload_libraries", libraries)
            .setting("cron.use_background_workers", "on")
            .setting("user_logins_sqs.endpoint_url", sqs.endpoint())
            .environment("AWS_ACCESS_KEY_ID", "test")
            .environment("AWS_SECRET_ACCESS_KEY", "test")
            .start();
        let mut session = Database::existing(&cluster, "postgres").connect();
        session.run("CREATE EXTENSION user_logins_sqs");
        let directory = run::directory().join(run::unique_name("reader"));
        fs::create_dir(&directory).unwrap();
        let mut reader = Reader {
            page: PathBuf::from(page.path),
            cluster,
            session,
            directory,
            has_pg_cron,
            _sqs: sqs,
        };
        reader.run_statement(0, page.setup);
        reader
    }

    /// A directory of the examples, which must not be touched on this machine, is one below the reader's.
    fn relocated(&self, text: &str) -> String {
        let keys = self.directory.join("keys");
        text.replace("/etc/postgresql/keys", &keys.display().to_string())
    }

    fn follow(&mut self, block: &Block) {
        match block.language.as_str() {
            "sql" => self.run_sql(block),
            "console" => self.run_commands(block),
            "ini" => self.check_settings(block),
            _ => {}
        }
    }

    fn run_sql(&mut self, block: &Block) {
        if block.is_marked("fresh") {
            self.session.run("DROP EXTENSION user_logins_sqs");
        }
        if let Some(role) = block.mark("as") {
            self.session.run(&format!("SET ROLE {role}"));
        }
        for (line, statement) in block.statements() {
            self.run_statement(line, &statement);
        }
        if block.mark("as").is_some() {
            self.session.run("RESET ROLE");
        }
    }

    fn run_statement(&mut self, line: usize, statement: &str) {
        if statement.contains("cron") && !self.has_pg_cron {
            println!("SKIPPED: pg_cron is not installed for this server: {statement}");
        } else if let Err(error) = self.session.try_run(&self.relocated(statement)) {
            panic!(
                "{}:{line}: {statement}\n{}",
                self.page.display(),
                show(&error)
            );
        }
    }

    fn run_commands(&mut self, block: &Block) {
        // SAFETY: geteuid has no preconditions and cannot fail.
        let is_root = unsafe { libc::geteuid() } == 0;
        for command in block.commands() {
            if command.for_root && !is_root {
                println!("SKIPPED: only root may: {}", command.text);
                continue;
            }
            let output = self
                .shell()
                .args(["-euo", "pipefail", "-c", &self.relocated(&command.text)])
                .output()
                .unwrap();
            assert!(
                output.status.success(),
                "{}:{}: {}\n{}",
                self.page.display(),
                block.line,
                command.text,
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }

    /// A shell in the reader's directory, which finds this server, and copies of what is installed for it.
    fn shell(&self) -> Command {
        let (socket, port) = self.cluster.address();
        let mut path = vec![self.programs()];
        path.extend(std::env::split_paths(
            &std::env::var_os("PATH").unwrap_or_default(),
        ));
        let mut shell = Command::new("bash");
        shell
            .current_dir(&self.directory)
            .env("PATH", std::env::join_paths(path).unwrap())
            .env("PGHOST", socket)
            .env("PGPORT", port.to_string())
            .env("PGUSER", "postgres")
            .env("PGOPTIONS", "")
            .stdin(Stdio::null());
        shell
    }

    /// Postgres' programs, with a pg_config that names copies of the extension's files: a command may remove those.
    fn programs(&self) -> PathBuf {
        let programs = self.directory.join("bin");
        if programs.exists() {
            return programs;
        }
        let real = PathBuf::from(self.cluster.client_program("psql").get_program());
        let real = real.parent().expect("a directory of programs");
        let script = format!(
            "set -e
             mkdir bin lib share share/extension
             ln -s {real}/* bin
             rm bin/pg_config
             cp \"$({real}/pg_config --pkglibdir)\"/user_logins_sqs.so lib
             cp \"$({real}/pg_config --sharedir)\"/extension/user_logins_sqs* share/extension
             printf '#!/bin/sh\\ncase $1 in --pkglibdir) echo %s/lib ;; --sharedir) echo %s/share ;; esac\\n' \
                 \"$PWD\" \"$PWD\" >bin/pg_config
             chmod +x bin/pg_config",
            real = real.display()
        );
        let made = Command::new("sh")
            .current_dir(&self.directory)
            .args(["-c", &script])
            .status()
            .unwrap();
        assert!(made.success());
        programs
    }

    /// Every line must be a setting of the server, or a comment.
    fn check_settings(&mut self, block: &Block) {
        for line in block.text.lines() {
            let name = line.split(['=', '#']).next().unwrap_or_default().trim();
            if name.is_empty() {
                continue;
            }
            let known = format!("SELECT count(*) FROM pg_settings WHERE name = '{name}'");
            assert_eq!(
                self.session.number(&known),
                1,
                "{}: {line}",
                self.page.display()
            );
        }
    }
}

#[test]
fn the_commands_of_each_page_run() {
    for page in &PAGES {
        let document = Document::read(Path::new(page.path));
        let mut reader = Reader::of(page);
        for block in &document.blocks {
            if block.mark("needs").is_none() && block.mark("tested").is_none() {
                reader.follow(block);
            }
        }
    }
}

#[test]
fn every_block_of_commands_is_run_or_says_why_not() {
    let run: BTreeSet<&Path> = PAGES.iter().map(|page| Path::new(page.path)).collect();
    for document in Document::all() {
        for block in &document.blocks {
            let at = format!("{}:{}", document.path.display(), block.line);
            for mark in &block.marks {
                let is_known = ["needs=aws", "needs=machine"].contains(&mark.as_str())
                    || mark == "fresh"
                    || mark.strip_prefix("as=").is_some()
                    || mark.strip_prefix("on=").is_some()
                    || mark
                        .strip_prefix("tested=")
                        .is_some_and(|file| project().join(file).is_file());
                assert!(
                    is_known,
                    "{at}: {mark} is not a mark, or does not name a file"
                );
            }
            let is_output = ["text", "json"].contains(&block.language.as_str());
            let says_why_not = block.mark("needs").is_some() || block.mark("tested").is_some();
            assert!(
                is_output || says_why_not || run.contains(document.path.as_path()),
                "{at}: nothing runs this block. Add its page to PAGES, or mark it"
            );
        }
    }
}

#[test]
fn targets_of_the_makefile_that_are_named_exist() {
    let makefile = fs::read_to_string(project().join("Makefile")).unwrap();
    for document in Document::all() {
        let inline = document
            .spans
            .iter()
            .map(|(line, span)| (*line, span.clone()));
        let commands = document.blocks.iter().flat_map(|block| {
            block
                .commands()
                .into_iter()
                .map(|command| (block.line, command.text))
        });
        for (line, command) in inline.chain(commands) {
            let words = command
                .split_whitespace()
                .skip_while(|word| word.contains('='));
            let mut words = words.peekable();
            if words.next_if_eq(&"make").is_none() {
                continue;
            }
            let Some(target) = words.find(|word| !word.contains('=')) else {
                continue;
            };
            assert!(
                makefile.contains(&format!("\n{target}:")),
                "{}:{line}: {command}",
                document.path.display()
            );
        }
    }
}

#[test]
fn inline_statements_are_sql() {
    let database = Database::shared();
    let mut session = database.connect();
    for document in Document::all() {
        for (line, span) in &document.spans {
            let verbs = [
                "SELECT ",
                "CALL ",
                "UPDATE ",
                "ALTER ",
                "CREATE TABLE ",
                "SET ",
            ];
            let is_statement = verbs.iter().any(|verb| span.starts_with(verb));
            // Neither abbreviated nor the signature of a procedure.
            let is_whole = span.contains([';', '=', '('])
                && !["…", "...", " DEFAULT "]
                    .iter()
                    .any(|part| span.contains(part));
            if !is_statement || !is_whole {
                continue;
            }
            let body = span
                .trim_end_matches(';')
                .replacen("SELECT ", "PERFORM ", 1);
            let parsed = format!("DO $parse$ BEGIN RETURN; {body}; END $parse$");
            if let Err(error) = session.try_run(&parsed) {
                panic!(
                    "{}:{line}: {span}\n{}",
                    document.path.display(),
                    show(&error)
                );
            }
        }
    }
}

#[test]
fn the_tour_of_the_readme_is_that_of_the_demo() {
    let tour = fs::read_to_string(project().join("scripts/demo/tour.sql")).unwrap();
    let readme = Document::read(Path::new("README.md"));
    let transcripts = readme
        .blocks
        .iter()
        .filter(|block| block.language == "text");
    for line in transcripts.flat_map(|block| block.text.lines()) {
        let statement = match line.split_once("'http://127.0.0.1:") {
            Some((before, rest)) => {
                let (_, after) = rest.split_once('\'').expect("a closing quote");
                format!("{before}:'queue'{after}")
            }
            None => line.to_owned(),
        };
        if statement.ends_with(';') {
            assert!(tour.contains(&statement), "the demo does not run: {line}");
        }
    }
}

/// What `docs/reference.md` says of a setting, or what Postgres does, in its words.
#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Setting {
    name: String,
    kind: String,
    default: String,
    context: String,
}

/// The rows of the table of settings, without the default's explanation: `empty: all` is `empty`.
fn documented_settings() -> Vec<Setting> {
    let reference = fs::read_to_string(project().join("docs/reference.md")).unwrap();
    let (_, section) = reference.split_once("\n## Settings\n").expect("a section");
    let (section, _) = section.split_once("\n## ").expect("another section");
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split(" | ").collect();
        let [name, kind, default, context, _] = cells[..] else {
            panic!("not a row of five cells: {row}");
        };
        let default = default.split(':').next().unwrap_or_default();
        Setting {
            name: name.trim_start_matches("| ").replace('`', ""),
            kind: kind.replace('`', ""),
            default: default.replace('`', ""),
            context: context.to_owned(),
        }
    })
    .collect()
}

#[test]
fn the_reference_lists_each_setting_with_its_type_default_and_context() {
    let database = Database::shared();
    let mut session = database.connect();
    session.run("LOAD 'user_logins_sqs'");
    // A role without rights does not see what is hidden from others.
    session.run(
        "CREATE FUNCTION is_hidden(text) RETURNS boolean LANGUAGE sql SET ROLE pg_signal_backend
         AS 'SELECT NOT EXISTS (SELECT FROM pg_settings WHERE name = $1)'",
    );
    let found = session.rows(
        "SELECT substr(name, 17),
           CASE vartype
             WHEN 'bool' THEN 'boolean'
             WHEN 'enum' THEN array_to_string(enumvals, ', ')
             WHEN 'integer' THEN CASE unit WHEN 'min' THEN 'time in minutes' WHEN 's' THEN 'time in s'
                 WHEN 'ms' THEN 'time in ms' ELSE 'integer' END
               || CASE max_val WHEN '2147483647' THEN '' ELSE ', ' || min_val || '–' || max_val END
             ELSE vartype END,
           CASE WHEN coalesce(boot_val, '') = '' THEN 'empty'
             WHEN boot_val = '0' OR unit IS NULL THEN boot_val
             WHEN unit = 'min' THEN round(boot_val::numeric / 1440, 3)::float || ' d'
             ELSE boot_val || ' ' || unit END,
           context || CASE WHEN is_hidden(name) THEN ', hidden from others' ELSE '' END
         FROM pg_settings WHERE name LIKE 'user\\_logins\\_sqs.%'",
    );
    let mut settings: Vec<Setting> = found
        .into_iter()
        .map(|row| {
            let mut cells = row.into_iter().map(Option::unwrap_or_default);
            let mut next = || cells.next().unwrap_or_default();
            Setting {
                name: next(),
                kind: next(),
                default: next(),
                context: next(),
            }
        })
        .collect();
    settings.sort();
    let mut documented = documented_settings();
    documented.sort();
    assert_eq!(documented, settings);
}
