//! The real codec binary under its real locks, fed by a supervisor that is played here.

#![allow(unreachable_pub, reason = "the modules of one test binary share their helpers")]

mod media;
mod plans;
mod supervisor;

mod encodes;
mod hostile;
mod probes;
mod whole;
