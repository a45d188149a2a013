//! The presets.

use mpegflow_protocol::api::Preset;

/// A preset that the planner knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PresetName {
    /// H.264 and AAC ladder for the web.
    Web,
}

impl PresetName {
    /// Every preset.
    pub const ALL: &'static [Self] = &[Self::Web];

    /// The preset of that name.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|p| p.as_str() == name)
    }

    /// Its name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Web => "web",
        }
    }

    /// As the API lists it.
    pub fn describe(self) -> Preset {
        let description = match self {
            Self::Web => {
                "H.264 (up to 1080p, or video.max_height) and AAC in CMAF with HLS playlists. The ladder follows the \
                 source's size and frame rate; nothing is upscaled."
            }
        };
        Preset { name: self.as_str().into(), description: description.into() }
    }
}
