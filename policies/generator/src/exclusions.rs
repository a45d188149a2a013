//! What foreign engines get wrong or cannot do.
