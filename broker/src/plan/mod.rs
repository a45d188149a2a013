//! Planning as pure functions: from what an input is and what was asked for, to tasks, their outputs and their limits.
//!
//! | module | decides |
//! |---|---|
//! | [`presets`] | which presets there are |
//! | [`ladder`] | the video renditions: sizes and bit rates |
//! | [`stills`] | poster and sprite sheet |
//! | [`choose`] | which streams of the input are used |
//! | [`estimate`] | what a job costs, and whether it may |
//! | [`planned`] | what of a plan is kept to be told |
//! | [`budget`] | memory, CPU, time and bytes a task may use |
//! | [`graph`] | the tasks of a job, each from the results before it |
//! | [`graph::early`] | the same of a job that plays before it has ended |
//! | [`playlists`] | what such a job can be played from |
//! | [`verify`] | whether a result can be true at all |

pub mod bans;
pub mod budget;
pub mod choose;
pub mod estimate;
pub mod graph;
pub mod ladder;
pub mod planned;
pub mod playlists;
pub mod presets;
pub mod stills;
pub mod verify;

use mpegflow_protocol::encoder::EncoderSpeed;

/// What the operator of the broker decides about every plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How much work goes into every rung, where the job does not say.
    pub x264: EncoderSpeed,
    /// Threads of a codec process.
    pub threads: u32,
    /// What one job of the tenant may cost at most.
    pub caps: estimate::Caps,
}

impl Default for Settings {
    fn default() -> Self {
        Self { x264: EncoderSpeed::Fast, threads: 2, caps: estimate::Caps::default() }
    }
}
