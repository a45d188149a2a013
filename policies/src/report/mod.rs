//! An outcome as table, JSON, SARIF, HTML or DOT.
