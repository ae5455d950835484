//! The readers on real models, on models that are stored in several ways, and on damaged files.

mod damaged;
mod models;
