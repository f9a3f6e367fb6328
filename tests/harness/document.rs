//! What a document in Markdown tells its readers to run.

use std::fs;
use std::path::{Path, PathBuf};

/// Where the project is.
pub fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests' crate is in a folder of the project")
}

/// One document.
pub struct Document {
    /// Its path in the project.
    pub path: PathBuf,
    /// Its fenced blocks, in their order.
    pub blocks: Vec<Block>,
    /// Its inline code, each with the number of its line.
    pub spans: Vec<(usize, String)>,
}

/// A fenced block.
#[derive(Debug)]
pub struct Block {
    /// The number of its first line, in its document.
    pub line: usize,
    /// What follows the fence: `sql`, `console`, …
    pub language: String,
    /// The words after the language.
    pub marks: Vec<String>,
    /// Its lines, without the indentation of the fence.
    pub text: String,
}

impl Document {
    /// Reads a document.
    pub fn read(path: &Path) -> Document {
        let full_path = project().join(path);
        let text = fs::read_to_string(&full_path)
            .unwrap_or_else(|error| panic!("cannot read {full_path:?}: {error}"));
        let mut document = Document {
            path: path.to_owned(),
            blocks: Vec::new(),
            spans: Vec::new(),
        };
        let mut open: Option<(usize, Block)> = None;
        for (line, number) in text.lines().zip(1..) {
            let fence = line.trim_start().strip_prefix("```");
            match (&mut open, fence) {
                (None, Some(info)) => {
                    let mut words = info.split_whitespace().map(str::to_owned);
                    let block = Block {
                        line: number + 1,
                        language: words.next().unwrap_or_default(),
                        marks: words.collect(),
                        text: String::new(),
                    };
                    open = Some((line.len() - line.trim_start().len(), block));
                }
                (Some(_), Some(_)) => document.blocks.extend(open.take().map(|(_, block)| block)),
                (Some((indentation, block)), None) => {
                    block.text += line.get(*indentation..).unwrap_or_default();
                    block.text.push('\n');
                }
                // Text between backticks, if they are balanced, as they are unless it goes on in the next line.
                (None, None) => {
                    let spans = line.split('`').skip(1).step_by(2);
                    document
                        .spans
                        .extend(spans.map(|span| (number, span.to_owned())));
                }
            }
        }
        document
    }

    /// Every document of the project.
    pub fn all() -> Vec<Document> {
        let mut paths: Vec<PathBuf> = ["", "docs"]
            .iter()
            .flat_map(|folder| fs::read_dir(project().join(folder)).unwrap())
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
            .map(|path| path.strip_prefix(project()).unwrap().to_owned())
            .collect();
        paths.sort();
        paths.iter().map(|path| Document::read(path)).collect()
    }
}

impl Block {
    /// The value of a mark `name=value`.
    pub fn mark(&self, name: &str) -> Option<&str> {
        self.marks
            .iter()
            .find_map(|mark| mark.strip_prefix(name)?.strip_prefix('='))
    }

    /// Whether it has a mark that is a single word.
    pub fn is_marked(&self, word: &str) -> bool {
        self.marks.iter().any(|mark| mark == word)
    }

    /// Commands of a terminal session, each behind `$ ` or, for root, `# `. What follows without that is output,
    /// unless the line before it ends with a backslash or within quotes.
    pub fn commands(&self) -> Vec<ShellCommand> {
        let mut commands: Vec<ShellCommand> = Vec::new();
        for line in self.text.lines() {
            let begun = [("$ ", false), ("# ", true)]
                .iter()
                .find_map(|(prompt, for_root)| Some((line.strip_prefix(prompt)?, *for_root)));
            if let Some((text, for_root)) = begun {
                commands.push(ShellCommand {
                    text: text.to_owned(),
                    for_root,
                });
            } else if let Some(last) = commands.last_mut()
                && (last.text.ends_with('\\') || last.text.matches('\'').count() % 2 == 1)
            {
                last.text.push('\n');
                last.text += line;
            }
        }
        commands
    }

    /// Its statements of SQL, and the line that each begins at.
    pub fn statements(&self) -> Vec<(usize, String)> {
        let mut statements = Vec::new();
        let mut begin = 0;
        let mut quote: Option<String> = None;
        let mut at = 0;
        while let Some(rest) = self.text.get(at..).filter(|rest| !rest.is_empty()) {
            let step = match &quote {
                Some(end) if rest.starts_with(end.as_str()) => {
                    let length = end.len();
                    quote = None;
                    length
                }
                Some(_) => next(rest),
                None if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
                None if rest.starts_with(['\'', '"']) => {
                    quote = rest.get(..1).map(str::to_owned);
                    1
                }
                None if rest.starts_with('$') => {
                    quote = dollar_quote(rest);
                    quote.as_ref().map_or(1, String::len)
                }
                None if rest.starts_with(';') => {
                    statements.push(self.statement(begin, at + 1));
                    begin = at + 1;
                    1
                }
                None => next(rest),
            };
            at += step;
        }
        let last = self.statement(begin, self.text.len());
        let lines_of_code = last
            .1
            .lines()
            .filter(|line| !line.trim_start().starts_with("--"));
        if lines_of_code.count() > 0 {
            statements.push(last);
        }
        statements
    }

    fn statement(&self, begin: usize, end: usize) -> (usize, String) {
        let text = &self.text[begin..end];
        let blank = text.len() - text.trim_start().len();
        let lines_before = self.text[..begin + blank].matches('\n').count();
        (self.line + lines_before, text.trim().to_owned())
    }
}

/// A command of a shell.
#[derive(Debug)]
pub struct ShellCommand {
    /// The command, of several lines perhaps.
    pub text: String,
    /// Whether it stands behind the prompt of root.
    pub for_root: bool,
}

/// The length of the first character.
fn next(text: &str) -> usize {
    text.chars().next().map_or(1, char::len_utf8)
}

/// `$$` or `$name$`, if the text begins with it.
fn dollar_quote(text: &str) -> Option<String> {
    let (name, _) = text.strip_prefix('$')?.split_once('$')?;
    let is_name = name.chars().all(|c| c.is_alphanumeric() || c == '_')
        && !name.starts_with(|c: char| c.is_numeric());
    is_name.then(|| format!("${name}$"))
}
