//! Between a pager and its reader: notes reads, and how long the engine waits for them.

use super::recorder::{Pages, Recorder, lock};
use crate::pager::{Progress, Read, Reader, StreamPager};
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

/// A reader that notes what it does.
pub(crate) struct TracingReader {
    inner: Box<dyn Reader>,
    recorder: Arc<Mutex<Recorder>>,
    progress: Arc<Progress>,
    under_way: Vec<UnderWay>,
    /// What is done, and was not asked for yet.
    done: VecDeque<(Read, io::Result<usize>)>,
}

/// A read that has begun.
struct UnderWay {
    id: u64,
    begin: f64,
    bytes: u64,
}

impl TracingReader {
    /// Has the recorder note what the pager's reader does.
    pub(super) fn wrap(pager: &mut StreamPager, recorder: &Arc<Mutex<Recorder>>) {
        let (progress, begin) = (pager.progress(), lock(recorder).seconds());
        let under_way = pager.under_way().into_iter();
        let under_way = under_way.map(|(id, bytes)| UnderWay { id, begin, bytes }).collect();
        let (recorder, done) = (Arc::clone(recorder), VecDeque::new());
        pager.wrap_reader(|inner| Box::new(Self { inner, recorder, progress, under_way, done }));
    }

    fn recorder(&self) -> MutexGuard<'_, Recorder> {
        lock(&self.recorder)
    }

    /// Notes which reads are done, and what the pager holds.
    fn look(&mut self) {
        while let Some((read, result)) = self.inner.poll() {
            self.end(read, result);
        }
        let done = self.done.iter().filter(|(_, result)| result.is_ok());
        let done: u64 = done.map(|(read, _)| read.length()).sum();
        self.recorder().pages(Pages {
            pinned: self.progress.pinned(),
            ring: self.progress.ring() + done,
            reading: self.under_way.iter().map(|read| read.bytes).sum(),
            reads: self.under_way.len() as u32,
        });
    }

    fn end(&mut self, read: Read, result: io::Result<usize>) {
        let place = self.under_way.iter().position(|under_way| under_way.id == read.id());
        let begin = place.map_or(0.0, |place| self.under_way.swap_remove(place).begin);
        let bytes = result.as_ref().map_or(0, |bytes| *bytes as u64);
        self.recorder().read(begin, bytes);
        self.done.push_back((read, result));
    }
}

impl Reader for TracingReader {
    fn submit(&mut self, read: Read) {
        let begin = self.recorder().seconds();
        self.under_way.push(UnderWay { id: read.id(), begin, bytes: read.length() });
        self.inner.submit(read);
        self.look();
    }

    fn wait(&mut self) -> Option<(Read, io::Result<usize>)> {
        self.look();
        if self.done.is_empty() && !self.under_way.is_empty() {
            let begin = self.recorder().seconds();
            if let Some((read, result)) = self.inner.wait() {
                self.end(read, result);
            }
            self.recorder().stall(begin);
            self.look();
        }
        self.done.pop_front()
    }

    fn poll(&mut self) -> Option<(Read, io::Result<usize>)> {
        self.look();
        self.done.pop_front()
    }
}
