//! sandbox-worker/lockdown
