//! `kasa2mqtt completions`: what shells and `man` are to know of this command line.

use std::io;
use std::path::PathBuf;

use clap::{Args, Command, ValueEnum};
use clap_complete::Shell;

use super::output;

/// Prints what completes this command line in a shell, or its manual page.
#[derive(Debug, Args)]
pub struct Completions {
    /// For whom.
    #[arg(value_name = "SHELL|man")]
    pub reader: Reader,
    /// Write files into this folder instead, named as they are looked for; of manual pages, one for each command.
    #[arg(long, value_name = "FOLDER")]
    pub into: Option<PathBuf>,
}

/// Who reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)] // their names are all there is to say
pub enum Reader {
    Bash,
    Elvish,
    Fish,
    Powershell,
    Zsh,
    Man,
}

/// Writes down `command`, the whole command line.
///
/// # Errors
/// It cannot be written.
pub fn run(arguments: &Completions, mut command: Command) -> io::Result<()> {
    let name = command.get_name().to_string();
    match (arguments.reader.shell(), &arguments.into) {
        (Some(shell), Some(folder)) => {
            clap_complete::generate_to(shell, &mut command, name, folder).map(drop)
        }
        (None, Some(folder)) => clap_mangen::generate_to(command, folder),
        (shell, None) => {
            let mut text = Vec::new();
            match shell {
                Some(shell) => clap_complete::generate(shell, &mut command, name, &mut text),
                None => clap_mangen::Man::new(command).render(&mut text)?,
            }
            output::all(&text)
        }
    }
}

impl Reader {
    fn shell(self) -> Option<Shell> {
        Some(match self {
            Reader::Bash => Shell::Bash,
            Reader::Elvish => Shell::Elvish,
            Reader::Fish => Shell::Fish,
            Reader::Powershell => Shell::PowerShell,
            Reader::Zsh => Shell::Zsh,
            Reader::Man => return None,
        })
    }
}
