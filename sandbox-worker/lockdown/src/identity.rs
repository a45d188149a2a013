//! Gives up users, groups and capabilities, and looks whether they are gone.

use crate::NOBODY;
use crate::kernel::{self, CapabilityWord};
use std::io;

/// Why privileges are not gone.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The ids could not be read.
    #[error("reading the user and group ids")]
    Read(#[source] io::Error),
    /// Supplementary groups.
    #[error("leaving the supplementary groups")]
    Groups(#[source] io::Error),
    /// Bounding set.
    #[error("dropping capability {0} from the bounding set")]
    Bounding(u64, #[source] io::Error),
    /// Ambient set.
    #[error("clearing the ambient capabilities")]
    Ambient(#[source] io::Error),
    /// Group id.
    #[error("becoming group {NOBODY}")]
    Group(#[source] io::Error),
    /// User id.
    #[error("becoming user {NOBODY}")]
    User(#[source] io::Error),
    /// Capability sets.
    #[error("clearing the capabilities")]
    Capabilities(#[source] io::Error),
    /// A call reported success and changed nothing.
    #[error("{0} did not change although the kernel reported success")]
    Unchanged(&'static str),
}

/// One above the highest capability number that a set of 64 bits can hold.
const CAPABILITIES: u64 = 64;

/// From root: becomes nobody without groups. From anyone: drops every capability.
pub(crate) fn drop_privileges() -> Result<(), IdentityError> {
    let (user, _) = kernel::ids().map_err(IdentityError::Read)?;
    let root = user.contains(&0);
    // While CAP_SETPCAP is still there; without it (not root) the bounding set means nothing, since no_new_privs forbids to
    // gain from it.
    drop_bounding(root)?;
    kernel::ambient(libc::PR_CAP_AMBIENT_CLEAR_ALL, 0).map_err(IdentityError::Ambient)?;
    if root {
        kernel::clear_groups().map_err(IdentityError::Groups)?;
        kernel::set_group(NOBODY).map_err(IdentityError::Group)?;
        kernel::set_user(NOBODY).map_err(IdentityError::User)?;
    }
    // The change of user clears them only while no securebit says otherwise.
    kernel::set_capabilities([CapabilityWord::default(); 2]).map_err(IdentityError::Capabilities)?;
    look(root)
}

fn drop_bounding(root: bool) -> Result<(), IdentityError> {
    for capability in 0..CAPABILITIES {
        match kernel::prctl(libc::PR_CAPBSET_READ, capability) {
            Ok(0) => {}
            Ok(_) => match kernel::prctl(libc::PR_CAPBSET_DROP, capability) {
                Ok(_) => {}
                Err(_) if !root => return Ok(()),
                Err(e) => return Err(IdentityError::Bounding(capability, e)),
            },
            // The kernel's last capability lies before this one.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => return Ok(()),
            Err(e) => return Err(IdentityError::Bounding(capability, e)),
        }
    }
    Ok(())
}

fn look(was_root: bool) -> Result<(), IdentityError> {
    let (users, groups) = kernel::ids().map_err(IdentityError::Read)?;
    if users.contains(&0) || (was_root && users != [NOBODY; 3]) {
        return Err(IdentityError::Unchanged("the user id"));
    }
    if was_root && groups != [NOBODY; 3] {
        return Err(IdentityError::Unchanged("the group id"));
    }
    if was_root && kernel::group_count().map_err(IdentityError::Groups)? != 0 {
        return Err(IdentityError::Unchanged("the supplementary groups"));
    }
    if kernel::capabilities().map_err(IdentityError::Capabilities)? != [CapabilityWord::default(); 2] {
        return Err(IdentityError::Unchanged("the capabilities"));
    }
    for capability in 0..CAPABILITIES {
        match kernel::prctl(libc::PR_CAPBSET_READ, capability) {
            Ok(n) if n != 0 && was_root => return Err(IdentityError::Unchanged("the bounding set")),
            Ok(_) => {}
            Err(_) => break,
        }
        if kernel::ambient(libc::PR_CAP_AMBIENT_IS_SET, capability).is_ok_and(|set| set != 0) {
            return Err(IdentityError::Unchanged("the ambient capabilities"));
        }
    }
    Ok(())
}
