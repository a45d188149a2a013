//! The charts, rendered by helm as a user's helm would. The tests are in `tests/`, by what they prove.

mod health;
mod helm;
mod readme;
mod restricted;

pub use health::health;
pub use helm::{Helm, Rendered, chart_folder, images, pods, values_file};
pub use readme::readme;
pub use restricted::violations;
