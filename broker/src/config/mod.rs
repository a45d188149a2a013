//! The configuration: one TOML file, the environment and the command line become one resolved configuration, or a list of
//! everything that is wrong.
//!
//! | module | holds |
//! |---|---|
//! | [`keys`] | every key, once: type, default, documentation. File, environment, flags and the reference page come from it |
//! | [`setting`] | the types of values |
//! | [`layers`] | reading the three layers into the raw configuration |
//! | [`problem`] | what can be wrong, and where |
//! | [`resolved`] | what the raw configuration means: typed, checked against each other |
//! | [`reference`] | the page about the keys, and the listing of `--check-config` |
//!
//! Precedence: a flag wins over the environment, the environment over the file, the file over the default. No layer holds a
//! secret; keys name the files that do.

pub mod keys;
pub mod layers;
pub mod problem;
pub mod reference;
pub mod resolved;
pub mod setting;

pub use keys::{KEYS, Key, Raw};
pub use layers::{Layers, Origin, Slot};
pub use problem::{Problem, Problems};
pub use resolved::{Objects, Resolved};
