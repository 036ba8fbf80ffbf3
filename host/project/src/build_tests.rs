use std::path::Path;

use super::*;

/// A project with one workspace of packages. Their names differ from test to test: with `CARGO_TARGET_DIR` set, all of
/// them build into one directory.
fn project_with(dir: &Path, packages: &[&str]) -> Project {
    let mut manifest = "[project]\nname = \"a\"\n\n[components]\n".to_owned();
    for package in packages {
        manifest.extend([package, " = \"components/", package, "\"\n"]);
        package_in(&dir.join("components").join(package), package, "");
    }
    let members = packages.iter().map(|package| format!("\"{package}\"")).collect::<Vec<_>>().join(", ");
    write(&dir.join("components/Cargo.toml"), &format!("[workspace]\nresolver = \"3\"\nmembers = [{members}]\n"));
    write(&dir.join("convoke.toml"), &manifest);
    Project::find(dir).expect("a project")
}

fn package_in(dir: &Path, name: &str, more: &str) {
    let manifest = format!(
        "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[lib]\ncrate-type = [\"cdylib\"]\n{more}"
    );
    write(&dir.join("Cargo.toml"), &manifest);
    write(&dir.join("src/lib.rs"), "pub fn nothing() {}\n");
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().expect("a directory")).expect("made");
    std::fs::write(path, text).expect("written");
}

async fn build(builder: &mut Builder) -> (Result<BuildReport, BuildError>, Vec<String>) {
    let mut lines = Vec::new();
    let report = builder.build(CargoOutput::Lines(&mut |line| lines.push(line.to_owned()))).await;
    (report, lines)
}

#[tokio::test]
async fn components_are_built_and_built_again() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let project = project_with(dir.path(), &["again_a", "again_b"]);
    let mut builder = Builder::new(project.clone(), Profile::Quick);

    let (report, lines) = build(&mut builder).await;
    let report = report.expect("builds");
    let modules: Vec<_> = report.components.iter().map(|built| built.module.as_str()).collect();
    assert_eq!(modules, ["again_a", "again_b"]);
    assert!(report.components.iter().all(|built| built.changed && built.digest.len() == 64));
    let bytes = std::fs::read(project.build_dir().join("again_a.wasm")).expect("in place");
    assert_eq!(check_component(&bytes), Ok(()));
    assert!(lines.iter().any(|line| line.contains("Compiling again_a")), "{lines:?}");

    let (report, lines) = build(&mut builder).await;
    assert!(report.expect("builds").components.iter().all(|built| !built.changed));
    assert!(!lines.iter().any(|line| line.contains("Compiling")), "{lines:?}");
}

#[tokio::test]
async fn a_failed_build_has_the_compilers_words_and_leaves_the_last_one() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let project = project_with(dir.path(), &["failing"]);
    let mut builder = Builder::new(project.clone(), Profile::Quick);
    let wasm = project.build_dir().join("failing.wasm");
    build(&mut builder).await.0.expect("builds");
    let before = std::fs::read(&wasm).expect("in place");

    write(&project.root().join("components/failing/src/lib.rs"), "pub fn f() -> u32 { \"text\" }\n");
    let error = build(&mut builder).await.0.expect_err("does not compile");
    assert_eq!(error.to_string(), "the components do not compile");
    let diagnostics = error.diagnostics().join("");
    assert!(diagnostics.contains("error[E0308]: mismatched types"), "{diagnostics}");
    assert!(diagnostics.contains("--> components/failing/src/lib.rs:1:21"), "{diagnostics}");
    assert_eq!(std::fs::read(&wasm).expect("still there"), before);
}

#[tokio::test]
async fn cargos_own_refusal_is_the_message() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let project = project_with(dir.path(), &["refused"]);
    write(&project.root().join("components/refused/build.rs"), "fn main() { panic!(\"no schema here\") }\n");
    let error = build(&mut Builder::new(project, Profile::Quick)).await.0.expect_err("the build script fails");
    assert!(error.diagnostics().is_empty());
    let message = error.to_string();
    assert!(message.contains("failed to run custom build command for `refused"), "{message}");
    assert!(message.contains("no schema here"), "{message}");
}

#[tokio::test]
async fn a_finished_component_is_taken_as_it_is() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let file = dir.path().join("any.wasm");
    std::fs::write(&file, b"\0asm\x0d\0\x01\0").expect("written");
    write(&dir.path().join("convoke.toml"), "[project]\nname = \"a\"\n[components]\n\"x/any\" = \"any.wasm\"\n");
    let project = Project::find(dir.path()).expect("a project");
    write(&project.build_dir().join("gone.wasm"), "of a module that is no more");

    let report = build(&mut Builder::new(project.clone(), Profile::Quick)).await.0.expect("nothing to build");
    assert_eq!(report.components[0].wasm_path, project.build_dir().join("x/any.wasm"));
    assert_eq!(report.components[0].size_bytes, 8);
    assert!(report.components[0].wasm_path.exists());
    assert!(!project.build_dir().join("gone.wasm").exists());

    std::fs::write(&file, b"\0asm\x01\0\0\0").expect("written");
    let error = build(&mut Builder::new(project.clone(), Profile::Quick)).await.0.expect_err("a core module");
    assert!(error.to_string().contains("a core WebAssembly module and no component"), "{error}");
    assert!(error.hint().is_some());
}

#[tokio::test]
async fn what_is_no_component_package() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let project = project_with(dir.path(), &["plain"]);
    let package = project.root().join("components/plain");

    let manifest = std::fs::read_to_string(package.join("Cargo.toml")).expect("there");
    write(&package.join("Cargo.toml"), &manifest.replace("[\"cdylib\"]", "[\"rlib\"]"));
    let error = build(&mut Builder::new(project.clone(), Profile::Quick)).await.0.expect_err("no cdylib");
    assert!(matches!(error, BuildError::Plan(PlanError::NoCdylib { .. })), "{error}");

    write(&package.join("Cargo.toml"), "[package\n");
    let error = build(&mut Builder::new(project.clone(), Profile::Quick)).await.0.expect_err("no TOML");
    assert!(matches!(error, BuildError::Plan(PlanError::Metadata { .. })), "{error}");

    std::fs::remove_dir_all(&package).expect("removed");
    let error = build(&mut Builder::new(project, Profile::Quick)).await.0.expect_err("nothing there");
    assert!(matches!(error, BuildError::Plan(PlanError::NoPackage { .. })), "{error}");
    assert!(error.hint().is_some());
}

#[tokio::test]
async fn sources_are_the_package_its_local_dependencies_and_the_files_it_includes() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let project = project_with(dir.path(), &["sourced"]);
    let root = project.root().to_owned();
    package_in(
        &root.join("components/sourced"),
        "sourced",
        "\n[dependencies]\nhelper = { path = \"../../shared/helper\" }\n",
    );
    write(
        &root.join("components/sourced/src/lib.rs"),
        "pub const TEXT: &str = include_str!(\"../../../wit/a.wit\");\n",
    );
    write(&root.join("wit/a.wit"), "package a:b;\n");
    package_in(&root.join("shared/helper"), "helper", "\n[workspace]\n");
    write(
        &root.join("shared/helper/Cargo.toml"),
        "[package]\nname = \"helper\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[workspace]\n",
    );

    let mut builder = Builder::new(project, Profile::Quick);
    build(&mut builder).await.0.expect("builds");
    let sources = builder.sources().into_values().next().expect("one module");
    assert_eq!(sources.dirs, [root.join("components/sourced"), root.join("shared/helper")].into());
    assert!(sources.files.contains(&root.join("wit/a.wit")), "{sources:?}");
    assert!(sources.files.contains(&root.join("components/Cargo.toml")), "{sources:?}");
}

#[test]
fn digits_of_a_digest() {
    assert_eq!(hex(&[0, 1, 0xab, 0xff]), "0001abff");
}
