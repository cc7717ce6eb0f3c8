//! What a node keeps on disk: the journal, which is the truth; the index and the snapshots, which are caches of it.
//!
//! Nothing here knows what a record, a state or a transaction means: bytes come in, and the same bytes come out or an
//! error that says which file is damaged and what to do. The driver of the node writes the journal and the index, the
//! executor writes snapshots, the client API only reads. `docs/storage.md` draws every file byte by byte.
//!
//! Rules that hold throughout: no content of a file can panic the node or make it take memory a bound does not cover;
//! nothing is renamed or acknowledged before it is synced; after a failed sync the process must end.

pub mod disk;
pub mod home;
pub mod index;
pub mod journal;
pub mod sim_disk;
pub mod snapshot;

pub use disk::{Disk, DiskFile, RealDisk};
pub use home::{Home, HomeError};
pub use index::{Index, IndexError, IndexedBlock, IndexedTransaction};
pub use journal::{Journal, JournalConfig, JournalError, JournalReader, Position, Record, Recovered};
pub use sim_disk::{Loss, SimDisk};
pub use snapshot::{Snapshot, SnapshotError, Snapshots};
