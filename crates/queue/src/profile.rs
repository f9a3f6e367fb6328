//! The AWS configuration that the server process has: environment and profiles.

use std::env;
use std::ffi::{CStr, OsStr};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::ptr;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_runtime::env_config::file::{Builder, EnvConfigFileKind, EnvConfigFiles};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_types::os_shim_internal::{Env, Fs};

/// Everything that AWS' programs would find, with the standard chain of credentials. `http` makes the
/// calls that fetch credentials.
pub(crate) async fn standard_config(http: SharedHttpClient, region: &str) -> SdkConfig {
    aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new(region.to_owned()))
        .profile_files(profile_files())
        .http_client(http)
        .load()
        .await
}

/// An access key that is written in the profile, if there is one. Nothing on the network is asked.
pub(crate) async fn access_key_in_profile() -> Option<Credentials> {
    let profiles = aws_config::profile::load(&Fs::real(), &Env::real(), &profile_files(), None)
        .await
        .ok()?;
    let property = |name| profiles.get(name).map(str::to_owned);
    Some(Credentials::new(
        property("aws_access_key_id")?,
        property("aws_secret_access_key")?,
        property("aws_session_token"),
        None,
        "profile",
    ))
}

/// The files that AWS' programs read. Where the environment has no `HOME`, as in a server that Debian's `pg_ctlcluster`
/// started, the home directory is that of the user database.
fn profile_files() -> EnvConfigFiles {
    let home = match env::var_os("HOME") {
        Some(home) if !home.is_empty() => None,
        _ => home_directory(),
    };
    let files = EnvConfigFiles::builder();
    let files = profile_file(
        files,
        EnvConfigFileKind::Config,
        "AWS_CONFIG_FILE",
        "config",
        home.as_ref(),
    );
    profile_file(
        files,
        EnvConfigFileKind::Credentials,
        "AWS_SHARED_CREDENTIALS_FILE",
        "credentials",
        home.as_ref(),
    )
    .build()
}

fn profile_file(
    files: Builder,
    kind: EnvConfigFileKind,
    variable: &str,
    name: &str,
    home: Option<&PathBuf>,
) -> Builder {
    let found = home
        .filter(|_| env::var_os(variable).is_none())
        .map(|home| home.join(".aws").join(name))
        .filter(|path| path.exists());
    match (found, kind) {
        (Some(path), _) => files.with_file(kind, path),
        (None, EnvConfigFileKind::Config) => files.include_default_config_file(true),
        (None, EnvConfigFileKind::Credentials) => files.include_default_credentials_file(true),
    }
}

/// The home directory of the process' user, in the user database.
fn home_directory() -> Option<PathBuf> {
    /// More than any entry of the user database takes.
    const LONGEST_ENTRY: usize = 16 << 10;
    let mut entry = MaybeUninit::<libc::passwd>::uninit();
    let mut text = vec![0; LONGEST_ENTRY];
    let mut found = ptr::null_mut();
    // SAFETY: `entry` and `text` are writable and of the lengths given, and `found` is a place for a pointer. The
    // reentrant function keeps nothing of them.
    let status = unsafe {
        libc::getpwuid_r(
            libc::geteuid(),
            entry.as_mut_ptr(),
            text.as_mut_ptr(),
            text.len(),
            &mut found,
        )
    };
    if status != 0 || found.is_null() {
        return None;
    }
    // SAFETY: `found` is not null, so it points to `entry`, which the call has filled.
    let directory = unsafe { (*found).pw_dir };
    if directory.is_null() {
        return None;
    }
    // SAFETY: the entry's strings are null-terminated and lie in `text`, which lives until the end of this function.
    let directory = unsafe { CStr::from_ptr(directory) };
    Some(PathBuf::from(OsStr::from_bytes(directory.to_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_database_knows_the_home_directory() {
        let home = home_directory().unwrap();
        assert!(home.is_absolute(), "{}", home.display());
    }
}
