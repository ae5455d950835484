#![no_std]
//! skeleton
pub mod token;
