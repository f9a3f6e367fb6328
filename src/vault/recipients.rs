//! The file of recipients.

use std::fs;

use vault::Recipients;

use crate::errors::Failure;
use crate::settings;

/// The recipients that originals are sealed for; `None` where there is no vault.
///
/// # Errors
/// [`Failure::RecipientsUnreadable`], [`Failure::RecipientsUnusable`]: nothing may be received then.
pub fn recipients() -> Result<Option<Recipients>, Failure> {
    let Some(file) = settings::vault_recipients_file() else {
        return Ok(None);
    };
    let content = match fs::read(&file) {
        Ok(content) => content,
        Err(why) => return Err(Failure::RecipientsUnreadable { file, why }),
    };
    match Recipients::parse(&content) {
        Ok(recipients) => Ok(Some(recipients)),
        Err(why) => Err(Failure::RecipientsUnusable { file, why }),
    }
}
