//! Private keys, from age's identity files: as they are, or protected with a passphrase.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use age::armor::ArmoredReader;
use age::secrecy::SecretString;
use age::{DecryptError, Decryptor, Identity, IdentityFile, scrypt};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::terminal;

/// Why a file yields no identity. Never quotes the file.
#[derive(Debug, Error)]
#[error("identity file {}: {problem}", .file.display())]
pub struct IdentityError {
    file: PathBuf,
    problem: Problem,
}

#[derive(Debug, Error)]
enum Problem {
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    #[error("the passphrase cannot be read from the terminal: {0}")]
    NoPassphrase(io::Error),
    #[error("wrong passphrase")]
    WrongPassphrase,
    #[error("its passphrase would take this machine too long to check")]
    TooMuchWork,
    #[error("it is encrypted to a key, not with a passphrase; decrypt it with age first")]
    EncryptedToAKey,
    #[error("it is damaged")]
    Damaged,
    #[error("it holds public keys; the private key, AGE-SECRET-KEY-1…, is needed")]
    PublicKey,
    #[error("it holds no age identity, which is a line AGE-SECRET-KEY-1…")]
    NoIdentity,
}

/// The identities in a file, at least one. Asks for a passphrase if the file is protected with one.
pub fn read(file: &Path) -> Result<Vec<Box<dyn Identity>>, IdentityError> {
    let ask = || terminal::ask(&format!("Passphrase for {}: ", file.display()));
    fs::read(file)
        .map_err(Problem::Unreadable)
        .and_then(|content| identities(&Zeroizing::new(content), ask))
        .map_err(|problem| IdentityError {
            file: file.to_path_buf(),
            problem,
        })
}

fn identities(
    content: &[u8],
    ask: impl FnOnce() -> io::Result<SecretString>,
) -> Result<Vec<Box<dyn Identity>>, Problem> {
    let is_age_file =
        content.starts_with(b"age-encryption.org/") || content.starts_with(b"-----BEGIN AGE");
    if is_age_file {
        plain(&decrypt(content, ask)?)
    } else {
        plain(content)
    }
}

fn plain(content: &[u8]) -> Result<Vec<Box<dyn Identity>>, Problem> {
    let identities = IdentityFile::from_buffer(content)
        .map_err(|_| ())
        .and_then(|file| file.into_identities().map_err(|_| ()))
        .unwrap_or_default();
    if !identities.is_empty() {
        return Ok(identities);
    }
    let is_public = content
        .split(|&byte| byte == b'\n')
        .any(|line| line.starts_with(b"age1"));
    Err(if is_public {
        Problem::PublicKey
    } else {
        Problem::NoIdentity
    })
}

fn decrypt(
    content: &[u8],
    ask: impl FnOnce() -> io::Result<SecretString>,
) -> Result<Zeroizing<Vec<u8>>, Problem> {
    let decryptor = Decryptor::new(ArmoredReader::new(content)).map_err(|_| Problem::Damaged)?;
    if !decryptor.is_scrypt() {
        return Err(Problem::EncryptedToAKey);
    }
    let passphrase = scrypt::Identity::new(ask().map_err(Problem::NoPassphrase)?);
    let mut decrypted = decryptor
        .decrypt([&passphrase as &dyn Identity].into_iter())
        .map_err(|error| match error {
            DecryptError::ExcessiveWork { .. } => Problem::TooMuchWork,
            DecryptError::DecryptionFailed
            | DecryptError::KeyDecryptionFailed
            | DecryptError::NoMatchingKeys => Problem::WrongPassphrase,
            _ => Problem::Damaged,
        })?;
    let mut content = Zeroizing::new(Vec::new());
    decrypted
        .read_to_end(&mut content)
        .map_err(|_| Problem::Damaged)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use age::secrecy::ExposeSecret;
    use age::{Encryptor, Recipient, armor, x25519};

    use super::*;

    fn file(identity: &x25519::Identity) -> String {
        let secret = identity.to_string();
        format!(
            "# created: today\n# public key: {}\n{}\n",
            identity.to_public(),
            secret.expose_secret()
        )
    }

    fn encrypted(recipient: &dyn Recipient, content: &str, format: armor::Format) -> Vec<u8> {
        let encryptor = Encryptor::with_recipients([recipient].into_iter()).unwrap();
        let armored = armor::ArmoredWriter::wrap_output(Vec::new(), format).unwrap();
        let mut writer = encryptor.wrap_output(armored).unwrap();
        writer.write_all(content.as_bytes()).unwrap();
        writer.finish().unwrap().finish().unwrap()
    }

    fn passphrase() -> scrypt::Recipient {
        let mut passphrase = scrypt::Recipient::new("correct horse".to_string().into());
        passphrase.set_work_factor(1);
        passphrase
    }

    fn problem(content: &[u8], passphrase: &str) -> String {
        match identities(content, || Ok(SecretString::from(passphrase))) {
            Ok(_) => "none".to_string(),
            Err(problem) => problem.to_string(),
        }
    }

    #[test]
    fn a_file_may_hold_several_identities_between_comments() {
        let content = file(&x25519::Identity::generate()) + &file(&x25519::Identity::generate());
        let found =
            identities(content.as_bytes(), || unreachable!("it has no passphrase")).unwrap();
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn a_protected_file_opens_with_its_passphrase_only() {
        let content = file(&x25519::Identity::generate());
        for format in [armor::Format::Binary, armor::Format::AsciiArmor] {
            let protected = encrypted(&passphrase(), &content, format);
            let found = identities(&protected, || Ok(SecretString::from("correct horse"))).unwrap();
            assert_eq!(found.len(), 1);
            assert_eq!(
                problem(&protected, "battery staple"),
                Problem::WrongPassphrase.to_string()
            );
            assert_eq!(
                problem(&protected[..protected.len() - 5], "correct horse"),
                Problem::Damaged.to_string()
            );
        }
    }

    #[test]
    fn a_passphrase_that_cannot_be_asked_for_is_an_error() {
        let protected = encrypted(&passphrase(), "", armor::Format::Binary);
        let error = identities(&protected, || Err(io::ErrorKind::NotFound.into())).err();
        assert!(matches!(error, Some(Problem::NoPassphrase(_))));
    }

    #[test]
    fn each_other_file_has_its_word() {
        let identity = x25519::Identity::generate();
        let to_a_key = encrypted(
            &identity.to_public(),
            &file(&identity),
            armor::Format::Binary,
        );
        let public = format!("# them\n{}\n", identity.to_public());
        for (content, expected) in [
            (&b""[..], Problem::NoIdentity),
            (b"# nothing\n", Problem::NoIdentity),
            (b"AGE-SECRET-KEY-1QQQQ\n", Problem::NoIdentity),
            (b"\xff\xfe", Problem::NoIdentity),
            (b"age-encryption.org/v1\n", Problem::Damaged),
            (b"-----BEGIN AGE ENCRYPTED FILE-----\n", Problem::Damaged),
            (public.as_bytes(), Problem::PublicKey),
            (&to_a_key, Problem::EncryptedToAKey),
        ] {
            assert_eq!(problem(content, ""), expected.to_string());
        }
    }
}
