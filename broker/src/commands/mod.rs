//! What `mpegflow-broker` does beside serving, one file for each subject.

pub(crate) mod audit;
pub(crate) mod intake;
pub(crate) mod keys;
pub(crate) mod storage;
