//! Boards by name: what a model on one of them has room for.

use crate::pack::{self, BoardPlan, Target};
use crate::package::Package;
use crate::{Error, Result};
use omex_core::engine::STACK_BYTES;
use serde::Serialize;

/// A board that there is firmware for, in `boards/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Board {
    /// Its name.
    pub name: &'static str,
    /// Bytes of memory.
    pub ram: u64,
    /// Bytes of it for the image's tables, the engine, and pages.
    pub arena: u64,
    /// Bytes of it for the stack.
    pub stack: u64,
    /// Bytes of flash for the firmware.
    pub flash: u64,
    /// Bytes of flash for the image; `None` if it lies on an SD card.
    pub image: Option<u64>,
    /// Bytes that the firmware takes of its flash: what plays language models, and what plays int8 graphs.
    pub firmware: [u64; 2],
}

/// All of them.
pub const BOARDS: &[Board] = &[
    Board {
        name: "lm3s6965evb",
        ram: 64 << 10,
        arena: 55280,
        stack: 10 << 10,
        flash: 256 << 10,
        image: None,
        firmware: [96 << 10, 64 << 10],
    },
    Board {
        name: "mps2-an386",
        ram: 4096 << 10,
        arena: 4184064,
        stack: 10 << 10,
        flash: 256 << 10,
        image: Some(3840 << 10),
        firmware: [96 << 10, 64 << 10],
    },
    Board {
        name: "mps3-an547",
        ram: 512 << 10,
        arena: 514048,
        stack: 10 << 10,
        flash: 256 << 10,
        image: Some(2048 << 10),
        firmware: [96 << 10, 64 << 10],
    },
    Board {
        name: "netduinoplus2",
        ram: 128 << 10,
        arena: 120832,
        stack: 10 << 10,
        flash: 256 << 10,
        image: Some(768 << 10),
        firmware: [96 << 10, 64 << 10],
    },
    Board {
        name: "nrf52840",
        ram: 256 << 10,
        arena: 245760,
        stack: 12 << 10,
        flash: 256 << 10,
        image: Some(768 << 10),
        firmware: [96 << 10, 80 << 10],
    },
    Board {
        name: "pico2",
        ram: 512 << 10,
        arena: 499712,
        stack: 12 << 10,
        flash: 512 << 10,
        image: Some(3584 << 10),
        firmware: [112 << 10, 80 << 10],
    },
    Board {
        name: "stm32h743",
        ram: 512 << 10,
        arena: 507904,
        stack: 12 << 10,
        flash: 2048 << 10,
        image: None,
        firmware: [112 << 10, 96 << 10],
    },
    Board {
        name: "virt-rv32",
        ram: 384 << 10,
        arena: 382976,
        stack: 10 << 10,
        flash: 256 << 10,
        image: Some(3836 << 10),
        firmware: [112 << 10, 64 << 10],
    },
];

/// What a model takes of a board, and what is left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DevicePlan {
    /// The board's name.
    pub device: &'static str,
    /// Memory.
    pub memory: BoardPlan,
    /// Bytes of the arena that nothing needs, which hold more pages where these are copied.
    pub memory_left: u64,
    /// Bytes of the stack.
    pub stack: Room,
    /// Bytes of flash for the firmware.
    pub firmware: Room,
    /// Bytes of flash for the image; `None` if it lies on an SD card.
    pub image: Option<Room>,
}

/// What is needed of what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Room {
    /// Needed, at most.
    pub needed: u64,
    /// There.
    pub given: u64,
}

impl Board {
    /// The board of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        BOARDS.iter().find(|board| board.name == name)
    }

    /// What an image is packed for.
    #[must_use]
    pub fn target(&self, context: Option<u32>) -> Target {
        let (page_size, columns, kv) = (None, None, None);
        let (reserve, mapped) = (self.ram - self.arena, self.image.is_some());
        Target { ram: self.ram, reserve, mapped, page_size, columns, context, kv }
    }

    /// What a model takes of the board.
    ///
    /// # Errors
    /// What there is too little of, and how much of it is missing.
    pub fn plan(&self, package: &Package, context: Option<u32>) -> Result<DevicePlan> {
        let plan = pack::plan(package, &self.target(context)).map_err(|error| match error {
            Error::Budget { needed, given } => self.lacks("memory", Room { needed, given }),
            error => error,
        })?;
        let BoardPlan { reserve, tables, ring, kv_cache, activations, .. } = plan;
        let [text, int8] = self.firmware;
        let needed = if package.graph.vocab_size > 0 { text } else { int8 };
        let image = self.image.map(|given| Room { needed: plan.image, given });
        if let Some(room) = image.filter(|room| room.needed > room.given) {
            return Err(self.lacks("flash for the image", room));
        }
        Ok(DevicePlan {
            device: self.name,
            memory: plan,
            memory_left: self.ram - reserve - tables - ring - kv_cache - activations,
            stack: Room { needed: STACK_BYTES as u64, given: self.stack },
            firmware: Room { needed, given: self.flash },
            image,
        })
    }

    fn lacks(&self, what: &'static str, Room { needed, given }: Room) -> Error {
        Error::Board { board: self.name, what, needed, given }
    }
}
