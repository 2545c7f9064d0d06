//! Files that PyTorch wrote: see `fixtures/torch/README.md`.

#![allow(clippy::unwrap_used)] // also in the helpers of tests

use std::fs;
use std::path::Path;

use tdb_model::checkpoint::{self, CheckpointError};
use tdb_model::{AutoencoderSite, AutoencoderWeights, Config, LatentActivation};
use tdb_testkit::torch;

fn read(name: &str) -> Result<AutoencoderWeights, CheckpointError> {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/torch").join(name);
    read_bytes(&fs::read(fixture).unwrap())
}

fn read_bytes(file: &[u8]) -> Result<AutoencoderWeights, CheckpointError> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("0.pt"), file).unwrap();
    let config = Config::gpt2(1, 4, 1, 8, 4, 16);
    let mut read = checkpoint::open_autoencoder(folder.path(), Some(AutoencoderSite::ResidDeltaAttn), &config)?;
    Ok(read.layers.remove(0))
}

fn numbers(range: std::ops::Range<usize>, unit: f32) -> Vec<f32> {
    range.map(|i| i as f32 / unit).collect()
}

#[test]
fn the_state_dict_of_a_module() {
    let layer = read("torch-1.13-state-dict.pt").unwrap();
    assert_eq!(layer.encoder_pre_bias, numbers(0..4, 8.0));
    assert_eq!(layer.latent_bias, [0.0, -0.25, -0.5]);
    assert_eq!(layer.encoder.to_vec(), numbers(0..12, 16.0));
    assert_eq!(layer.decoder.transpose().to_vec(), numbers(0..12, 32.0));
    assert_eq!(layer.decoder.row_stride(), 1, "stored transposed, read as a view");
    assert_eq!(layer.activation, LatentActivation::TopK { k: 2, relu: true });
    assert_eq!(layer.activation_frequency, Some(vec![0.5; 3]));
}

#[test]
fn views_of_one_storage_of_half_precision() {
    for name in ["torch-1.13-views.pt", "torch-1.13-views-protocol-4.pt"] {
        let layer = read(name).unwrap();
        assert_eq!(layer.encoder_pre_bias, numbers(4..8, 16.0));
        assert_eq!(layer.latent_bias, [1.0 / 16.0, 3.0 / 16.0, 5.0 / 16.0]);
        assert_eq!(layer.encoder.to_vec(), numbers(8..20, 16.0));
        assert_eq!(layer.decoder.transpose().to_vec(), numbers(20..32, 16.0));
        assert_eq!(layer.activation, LatentActivation::Identity);
        assert_eq!(layer.activation_frequency, None);
    }
}

#[test]
fn the_format_before_1_6_is_refused() {
    let text = read("torch-1.13-legacy.pt").unwrap_err().to_string();
    assert!(text.contains("0.pt") && text.contains("before 1.6"), "{text}");
}

/// A state dict as torch writes it, but for what stands behind the hooks of its first tensor (opcodes of a pickle).
fn with_marks(marks: &[u8]) -> Vec<u8> {
    let text = |text: &str| [b"X", (text.len() as u32).to_le_bytes().as_slice(), text.as_bytes()].concat();
    let tuple =
        |numbers: &[u8]| [b"(", numbers.iter().flat_map(|&n| [b'K', n]).collect::<Vec<_>>().as_slice(), b"t"].concat();
    let tensors: [(&str, &[u8], &[u8]); 4] = [
        ("pre_bias", &[4], &[1]),
        ("latent_bias", &[3], &[1]),
        ("encoder.weight", &[3, 4], &[4, 1]),
        ("decoder.weight", &[4, 3], &[3, 1]),
    ];
    let mut pickle = b"\x80\x02}(".to_vec();
    for (i, (key, shape, strides)) in tensors.into_iter().enumerate() {
        let elements = shape.iter().product();
        let id = [
            text("storage"),
            b"ctorch\nFloatStorage\n".to_vec(),
            text(&i.to_string()),
            text("cpu"),
            vec![b'K', elements],
        ];
        let marks = if i == 0 { marks } else { b"" };
        pickle.extend(
            [
                text(key),
                b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec(),
                id.concat(),
                b"tQK\0".to_vec(),
                tuple(shape),
                tuple(strides),
                b"\x89ccollections\nOrderedDict\n)R".to_vec(),
                marks.to_vec(),
                b"tR".to_vec(),
            ]
            .concat(),
        );
    }
    pickle.extend([text("activation"), text("ReLU"), b"u.".to_vec()].concat());
    let numbers: Vec<u8> = (1..=12).flat_map(|i| (i as f32).to_le_bytes()).collect();
    let data: Vec<&[u8]> =
        tensors.iter().map(|(_, shape, _)| &numbers[..4 * shape.iter().product::<u8>() as usize]).collect();
    let members: Vec<(&str, &[u8])> = [("archive/data.pkl", pickle.as_slice())]
        .into_iter()
        .chain(["archive/data/0", "archive/data/1", "archive/data/2", "archive/data/3"].into_iter().zip(data))
        .collect();
    let mut file = Vec::new();
    torch::archive(&members, &mut file).unwrap();
    file
}

/// `torch.save` of `z.conj().imag` writes `{'neg': True}`: the stored numbers have the other sign.
#[test]
fn a_view_with_another_sign_is_refused() {
    for none in [b"".as_slice(), b"N", b"}"] {
        assert_eq!(read_bytes(&with_marks(none)).unwrap().encoder_pre_bias, [1.0, 2.0, 3.0, 4.0]);
    }
    for mark in ["neg", "conj"] {
        let dict = [b"}X\x03\0\0\0".as_slice(), mark.as_bytes(), b"\x88s"].concat();
        let dict = dict.iter().map(|&byte| if byte == 3 { mark.len() as u8 } else { byte }).collect::<Vec<_>>();
        let text = read_bytes(&with_marks(&dict)).unwrap_err().to_string();
        assert!(text.contains("0.pt: `pre_bias`") && text.contains(&format!("`{mark}` set")), "{text}");
    }
    let text = read_bytes(&with_marks(b"K\x01")).unwrap_err().to_string();
    assert!(text.contains("7 arguments"), "{text}");
}
