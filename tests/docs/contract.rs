//! The files of `tally.v1` with their comments.

use prost::Message as _;
use prost_types::{FileDescriptorProto, FileDescriptorSet, SourceCodeInfo};

/// Numbers of fields of descriptor messages, as paths of source locations use them.
pub const MESSAGES: i32 = 4;
pub const ENUMS: i32 = 5;
pub const SERVICES: i32 = 6;
pub const MEMBERS: i32 = 2;

/// A file, and what is written above each of its parts.
pub struct File {
    pub descriptor: FileDescriptorProto,
    source: SourceCodeInfo,
}

/// All files of the package, by name.
pub fn files() -> Vec<File> {
    let set = FileDescriptorSet::decode(tally_proto::FILE_DESCRIPTOR_SET).unwrap();
    let mut files: Vec<_> = set
        .file
        .into_iter()
        .filter(|file| file.package() == "tally.v1")
        .map(|mut descriptor| File { source: descriptor.source_code_info.take().unwrap(), descriptor })
        .collect();
    files.sort_by(|one, other| one.descriptor.name().cmp(other.descriptor.name()));
    assert!(files.len() > 5);
    files
}

impl File {
    /// The comment above the part at `path`, on one line. Every part has one: the linter sees to it.
    pub fn comment(&self, path: &[i32]) -> String {
        let location = self.source.location.iter().find(|location| location.path == path);
        let text = location.map(|location| location.leading_comments()).unwrap_or_default();
        text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
    }
}

/// The place of a part in its list, as paths count.
pub fn numbered<T>(list: &[T]) -> impl Iterator<Item = (i32, &T)> {
    (0..).zip(list)
}
