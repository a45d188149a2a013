//! Everything that crosses a trust boundary in mpegflow, as types.
//!
//! | module | crosses | direction of distrust |
//! |---|---|---|
//! | [`ids`] | every boundary | text from anyone → typed ids |
//! | [`job`] | tenant → broker | the tenant's job spec |
//! | [`encoder`] | tenant → broker → codec | what may be asked of an encoder |
//! | [`task`] | broker → supervisor → codec | the plan of one task; and its result on the way back |
//! | [`media`] | codec → supervisor → broker | what a hostile file claims about itself |
//! | [`failure`] | codec → supervisor → broker → tenant | why an attempt or a job failed |
//! | [`evidence`] | supervisor → broker → tenant | which locks held |
//! | [`worker`] | supervisor ↔ broker | the worker API's bodies and headers |
//! | [`control`] | operator ↔ broker | the control API's bodies |
//! | [`canary`] | canary → operator | what a pod like a worker's saw around itself |
//! | [`telemetry`] | codec → supervisor → broker | where an attempt's time went |
//! | [`codec`] | codec ↔ supervisor | frames on the control and input sockets |
//! | [`api`] | broker → tenant | the public API's bodies |
//! | [`intake`] | broker ↔ tenant | the same of the intake |
//! | [`webhook`] | broker ↔ tenant | the same of webhooks |
//! | [`endpoint`] | operator → broker, worker | which addresses of storage a pool's workers may reach |
//! | [`decoders`] | – | names that a ban may say |
//! | [`path`] | – | where a job's output is to be found |
//! | [`limits`] | – | every size that a parser or a buffer is held to |
//!
//! Parsing is total: any bytes give a value or a [`ParseError`] that names the field. There is no I/O, no clock and no
//! randomness here.

pub mod api;
pub mod canary;
pub mod codec;
pub mod control;
pub mod decoders;
pub mod encoder;
pub mod endpoint;
pub mod evidence;
pub mod failure;
pub mod ids;
pub mod intake;
pub mod job;
pub mod limits;
pub mod media;
pub mod path;
pub mod task;
pub mod telemetry;
pub mod text;
pub mod webhook;
pub mod worker;

mod parse;

pub use parse::{ParseError, from_json, to_json};
