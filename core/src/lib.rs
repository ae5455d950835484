#![no_std]
#![doc = include_str!("../README.md")]

pub mod arena;
pub mod draft;
pub mod engine;
pub mod error;
pub mod fixed_point;
pub mod generate;
pub mod image;
pub mod math;
pub mod ops;
pub mod page;
pub mod pass;
pub mod program;
pub mod quant;
mod rows;
pub mod sample;
pub mod simd;
pub mod state;
pub mod token;
