#![no_std]
#![doc = include_str!("../README.md")]

pub mod arena;
mod check;
pub mod draft;
pub mod engine;
pub mod error;
pub mod generate;
pub mod image;
pub mod kv;
pub mod kv_store;
pub mod math;
mod ops;
pub mod page;
pub mod pass;
pub mod program;
pub mod quant;
mod rows;
pub mod sample;
pub mod simd;
pub mod steps;
pub mod token;
