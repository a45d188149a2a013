//! What is told of a job's plan for as long as the job is there: worked out when its input was probed, and kept with it.

use super::estimate::{self, Estimate};
use super::graph::early;
use crate::model::NewTask;
use mpegflow_protocol::job::JobSpec;
use mpegflow_protocol::media::MediaInfo;
use mpegflow_protocol::task::TaskSpec;
use serde::{Deserialize, Serialize};

/// What follows from the plan of an input's encode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// What the job costs; none where the input does not say how long it is.
    pub estimate: Option<Estimate>,
    /// Why a job that asks to play early does not.
    pub whole_because: Option<String>,
}

impl Planned {
    /// Of the encode of all that is asked for, at once.
    pub fn of(spec: &JobSpec, media: &MediaInfo, whole: &NewTask) -> Self {
        let whole_because = match &whole.spec {
            TaskSpec::Encode(plan) if spec.output.early => early::whole_because(media, plan),
            _ => None,
        };
        Self { estimate: estimate::of(whole, media), whole_because: whole_because.map(str::to_owned) }
    }
}
