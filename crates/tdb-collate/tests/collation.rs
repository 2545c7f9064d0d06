//! A collation of a small text: equal to brute force, and the same bytes however it is cut up.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

use std::fs;

use crate::common::*;
use tdb_collate::corpus::{Sequence, Sequences, Shard, Versions};
use tdb_collate::work::split_layers;
use tdb_collate::{Kind, Parts, Result, Watch};
use tdb_data::collated::LayerFile;
use tdb_data::{ActivationRecord, Histogram, NodeRecord};
use tdb_model::{ForwardOptions, Numbers, Run, Site, Slot, Tokenizer};

/// The values of one unit, straight from the definitions.
fn values(run: &Run, layer: usize, kind: Kind, unit: usize) -> Vec<f32> {
    let (model, tokens) = (run.model(), run.tokens().len());
    let config = model.config();
    let [v, probs, post_act] =
        [Site::AttnV, Site::AttnQkProbs, Site::MlpPostAct].map(|site| run.get(site, layer).unwrap());
    let out = model.weight(&format!("blocks.{layer}.attn.o.weight")).unwrap();
    let [v, probs, post_act, out] = [&v, &probs, &post_act, &out].map(|tensor| Numbers::of(tensor).unwrap());
    let latents = |slot| &run.latents(slot, layer).unwrap().latents;
    // What head h writes at q because of k, [D].
    let write = |q: usize, k: usize, h: usize| -> Vec<f64> {
        (0..config.d_model)
            .map(|d| {
                let along = (0..config.d_head)
                    .map(|e| f64::from(v.at(&[k, h, e])) * f64::from(out.at(&[d, h * config.d_head + e])));
                f64::from(probs.at(&[q, k, h])) * along.sum::<f64>()
            })
            .collect()
    };
    let pairs = || (0..tokens).flat_map(|q| (0..=q).map(move |k| (q, k)));
    match kind {
        Kind::Neuron => (0..tokens).map(|t| post_act.at(&[t, unit])).collect(),
        Kind::MlpLatent => (0..tokens).map(|t| latents(Slot::Mlp).get(t, unit)).collect(),
        Kind::AttnLatent => (0..tokens).map(|t| latents(Slot::Attention).get(t, unit)).collect(),
        Kind::ResidualLatent => (0..tokens).map(|t| latents(Slot::Residual).get(t, unit)).collect(),
        Kind::Head => {
            pairs().map(|(q, k)| write(q, k, unit).iter().map(|x| x * x).sum::<f64>().sqrt() as f32).collect()
        }
        Kind::AttnLatentPairs => {
            let encoder = model.autoencoder(Slot::Attention, layer).unwrap().encoder_row(unit);
            let latents = latents(Slot::Attention);
            let value = |(q, k): (usize, usize)| {
                if latents.get(q, unit) == 0.0 {
                    return 0.0;
                }
                let towards = |h| write(q, k, h).iter().zip(&encoder).map(|(w, e)| w * f64::from(*e)).sum::<f64>();
                (0..config.n_heads).map(towards).sum::<f64>() as f32
            };
            pairs().map(value).collect()
        }
    }
}

/// The largest value but for that at the first token, and where it is first reached: at which token, for pairs the one that
/// attends.
fn peak(values: &[f32], tokens: usize) -> (f32, usize) {
    let mut best = (f32::NEG_INFINITY, 0);
    for (index, value) in values.iter().enumerate().skip(1) {
        if *value > best.0 {
            best = (*value, index);
        }
    }
    let query = |pair: usize| (0..tokens).rfind(|q| q * (q + 1) / 2 <= pair).unwrap();
    (best.0, if values.len() == tokens { best.1 } else { query(best.1) })
}

fn largest(values: &[f32]) -> f32 {
    values.iter().copied().skip(1).fold(f32::NEG_INFINITY, f32::max)
}

fn close(a: f64, b: f64, what: &str) {
    assert!((a - b).abs() <= 1e-6 + 1e-4 * a.abs().max(b.abs()), "{what}: {a} and {b}");
}

/// Every value but 0 is counted, and each bin holds those between its ends.
fn check_histogram<'a>(found: &Histogram, values: impl Iterator<Item = &'a f32> + Clone, what: &str) {
    let values = values.map(|x| f64::from(*x)).filter(|x| *x != 0.0);
    assert_eq!(found.counts().iter().sum::<u64>(), values.clone().count() as u64, "{what}");
    let (start, width) = (found.range().0, found.width());
    for (i, count) in found.counts().iter().enumerate() {
        let (low, high) = (start + i as f64 * width, start + (i + 1) as f64 * width);
        // A value beside an edge may be rounded to its other side.
        let within = |by: f64| values.clone().filter(|x| (low - by..high + by).contains(x)).count() as u64;
        assert!((within(-1e-5)..=within(1e-5)).contains(count), "{what}: {count} in bin {i} of {found:?}");
    }
}

/// An example's text and values agree with one of `all`; returns which.
fn find(record: &ActivationRecord, all: &[(Vec<String>, Vec<f32>)], what: &str) -> usize {
    let found = all.iter().position(|(tokens, _)| *tokens == record.tokens);
    let found = found.unwrap_or_else(|| panic!("{what}: {:?} is no sequence", record.tokens));
    assert_eq!(record.activations.len(), all[found].1.len());
    for (a, b) in record.activations.iter().zip(&all[found].1) {
        close(f64::from(*a), f64::from(*b), what);
    }
    found
}

#[test]
fn records_of_a_small_text_equal_brute_force() {
    let folder = tempfile::tempdir().unwrap();
    let (model, tokenizer) = (model(), Tokenizer::gpt2());
    let files = [text(folder.path(), 40)];
    let collation = collation(&model, &tokenizer, &files, (1, 2), folder.path().join("summaries"));
    collation.run(None, &()).unwrap();
    let out = folder.path().join("out");
    write_out(&collation.summaries.folder(), &out, &tokenizer);

    let cutting = collation.plan.cutting.clone();
    let sequences: Vec<_> = Sequences::new(&files, tokenizer.clone(), 50257, cutting, Shard::WHOLE)
        .unwrap()
        .collect::<Result<Vec<_>>>()
        .unwrap();
    let run = |s: &Sequence| model.forward(&s.tokens, ForwardOptions::default()).unwrap();
    let runs: Vec<_> = sequences.iter().map(|s| run(s)).collect();
    assert!(sequences.len() > 40);

    let layers = [0, 1].map(|layer| LayerFile::open(&out.join(format!("f32/{layer}.records"))).unwrap());
    let file = |layer: usize| &layers[layer];
    let mut active_latents = 0;
    for kind in Kind::ALL {
        for layer in 0..2 {
            let step = if kind == Kind::Head { 1 } else { 37 };
            for unit in (0..kind.count(&model, layer)).step_by(step) {
                let what = format!("{} {layer}:{unit}", kind.scalar());
                let texts = |s: &Sequence| s.tokens.iter().map(|t| token_text(&tokenizer, *t)).collect();
                let all: Vec<(Vec<String>, Vec<f32>)> =
                    (sequences.iter().zip(&runs)).map(|(s, r)| (texts(s), values(r, layer, kind, unit))).collect();
                let path = out.join("files").join(kind.scalar()).join(format!("{layer}/{unit}.json"));
                let record = NodeRecord::parse(&what, &fs::read(path).unwrap()).unwrap();
                assert_eq!((record.layer, record.index), (layer, unit));

                let mut expected: Vec<usize> = (0..all.len()).collect();
                // What is the same up to where the largest value is reached is one example.
                let cause = |i: usize| {
                    let (figure, at) = peak(&all[i].1, all[i].0.len());
                    (figure.to_bits(), at, all[i].0[..=at].to_vec())
                };
                let causes: Vec<_> = (0..all.len()).map(cause).collect();
                expected.retain(|i| all[*i].0.len() > 1 && !causes[..*i].contains(&causes[*i]));
                expected.retain(|i| !kind.is_sparse() || largest(&all[*i].1) > 0.0);
                expected.sort_by(|a, b| largest(&all[*b].1).total_cmp(&largest(&all[*a].1)).then(a.cmp(b)));
                expected.truncate(SIZES.top);
                let top: Vec<usize> = record.most_positive.iter().map(|r| find(r, &all, &what)).collect();
                assert_eq!(top, expected, "{what}");
                active_latents += usize::from(kind == Kind::AttnLatent && !top.is_empty());

                assert_eq!(record.random_sample.len(), SIZES.random);
                for r in &record.random_sample {
                    find(r, &all, &what);
                }
                let positive = all.iter().filter(|v| largest(&v.1) > 0.0).count();
                let lists = record.random_sample_by_quantile.unwrap();
                let sample: Vec<&ActivationRecord> = lists.iter().flatten().collect();
                assert_eq!(sample.len(), positive.min(SIZES.active()), "{what}");
                let figures: Vec<f32> = sample.iter().map(|r| largest(&r.activations)).collect();
                assert!(figures.is_sorted() && figures.iter().all(|f| *f > 0.0), "{what}");
                let boundaries = record.quantile_boundaries.unwrap();
                assert_eq!((lists.len(), boundaries.len()), (SIZES.quantiles, SIZES.quantiles - 1));
                for (list, boundary) in lists.iter().zip(&boundaries) {
                    assert!(list.iter().all(|r| largest(&r.activations) <= *boundary), "{what}");
                }
                for (list, boundary) in lists[1..].iter().zip(&boundaries) {
                    assert!(list.iter().all(|r| largest(&r.activations) >= *boundary), "{what}");
                }

                let histogram = file(layer).record(kind.scalar(), unit).unwrap().histogram.unwrap();
                check_histogram(&histogram, all.iter().flat_map(|v| &v.1), &what);
                let every: Vec<f64> = all.iter().flat_map(|v| &v.1).map(|x| f64::from(*x)).collect();
                let mean = every.iter().sum::<f64>() / every.len() as f64;
                let central = |p: i32| every.iter().map(|x| (x - mean).powi(p)).sum::<f64>() / every.len() as f64;
                close(record.moments.mean.unwrap(), mean, &what);
                close(record.moments.variance.unwrap(), central(2), &what);
                if central(2) > 1e-9 {
                    close(record.moments.skewness.unwrap(), central(3) / central(2).powf(1.5), &what);
                    close(record.moments.kurtosis.unwrap(), central(4) / central(2).powi(2), &what);
                }
            }
        }
    }
    assert!(active_latents > 3, "a test of latents that never fire shows nothing");
}

#[test]
fn shards_merged_in_any_order_give_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (model, tokenizer) = (model(), Tokenizer::gpt2());
    let text = [text(folder.path(), 40)];
    let mut outs = Vec::new();
    for (name, cut, order) in
        [("one", (1, 2), vec![0]), ("eight", (8, 2), vec![5, 0, 7, 2, 1, 6, 4, 3]), ("layers", (3, 1), vec![2, 1, 0])]
    {
        let summaries = folder.path().join(name).join("summaries");
        let mut collation = collation(&model, &tokenizer, &text, cut, summaries.clone());
        for shard in order {
            collation.threads = 1 + shard % 3;
            collation.run(Some(shard), &()).unwrap();
        }
        let out = folder.path().join(name).join("out");
        write_out(&summaries, &out, &tokenizer);
        outs.push(files(&out));
    }
    assert!(outs[0].len() > 2 * (256 * 4 + 4));
    for other in &outs[1..] {
        let names = |o: &[(String, Vec<u8>)]| o.iter().map(|f| f.0.clone()).collect::<Vec<_>>();
        assert_eq!(names(&outs[0]), names(other));
        for (a, b) in outs[0].iter().zip(other) {
            assert!(a.1 == b.1, "{} differs", a.0);
        }
    }

    // Merging itself, in several orders and groupings.
    let eight = plan(&model, &text, 8);
    let load = |shard: usize| {
        let name = tdb_collate::UnitName::new(&eight, shard, &(0..2)).file();
        tdb_collate::Summary::read(&folder.path().join("eight/summaries").join(name)).unwrap()
    };
    let mut written = Vec::new();
    for groups in [vec![vec![0, 1, 2, 3, 4, 5, 6, 7]], vec![vec![7, 3], vec![6, 1, 0], vec![2, 5, 4]]] {
        let mut parts = groups
            .into_iter()
            .map(|group| group.into_iter().map(load).reduce(|mut a, b| a.merge(b).map(|()| a).unwrap()).unwrap());
        let mut whole = parts.next().unwrap();
        parts.for_each(|part| whole.merge(part).unwrap());
        let path = folder.path().join("merged.summary");
        whole.write(&path).unwrap();
        written.push(fs::read(path).unwrap());
        let twice = whole.merge(load(3)).unwrap_err().to_string();
        assert!(twice.contains("both hold documents 3, 11, … below 43"), "{twice}");
    }
    assert!(written[0] == written[1]);
}

#[test]
fn a_layers_file_holds_what_the_single_files_hold() {
    let folder = tempfile::tempdir().unwrap();
    let (model, tokenizer) = (model(), Tokenizer::gpt2());
    let text = [text(folder.path(), 30)];
    let collation = collation(&model, &tokenizer, &text, (2, 2), folder.path().join("summaries"));
    collation.run(None, &()).unwrap();
    let out = folder.path().join("out");
    write_out(&collation.summaries.folder(), &out, &tokenizer);
    for layer in 0..2 {
        let [exact, half, bytes] =
            ["f32", "f16", "u8"].map(|name| LayerFile::open(&out.join(name).join(format!("{layer}.records"))).unwrap());
        let same = fs::read(out.join(format!("f32/{layer}.records"))).unwrap();
        let same = LayerFile::from_bytes("memory", same.into()).unwrap();
        assert_eq!(exact.footer(), same.footer());
        for kind in Kind::ALL {
            for unit in 0..kind.count(&model, layer) {
                let path = out.join("files").join(kind.scalar()).join(format!("{layer}/{unit}.json"));
                let expected = NodeRecord::parse("x", &fs::read(path).unwrap()).unwrap();
                let found = exact.record(kind.scalar(), unit).unwrap();
                // Reading a number from JSON may be off in its last digit.
                let list = |m: tdb_data::Moments| [m.mean, m.variance, m.skewness, m.kurtosis];
                for (a, b) in list(found.record.moments).into_iter().zip(list(expected.moments)) {
                    assert_eq!(a.is_some(), b.is_some());
                    let (a, b) = (a.unwrap_or_default(), b.unwrap_or_default());
                    assert!((a - b).abs() <= 1e-14 * a.abs(), "{a} {b}");
                }
                let moments = found.record.moments;
                assert_eq!(found.record, NodeRecord { moments, ..expected.clone() });
                assert_eq!(found, same.record(kind.scalar(), unit).unwrap());
                assert!(found.positive_values >= found.active_sequences);
                for rounded in [&half, &bytes] {
                    let rounded = rounded.record(kind.scalar(), unit).unwrap().record;
                    assert_eq!(rounded.moments, moments);
                    for (a, b) in rounded.most_positive.iter().zip(&expected.most_positive) {
                        assert_eq!(a.tokens, b.tokens);
                        let scale = expected.max_shown().max(expected.max_activation()) + 1.0;
                        for (a, b) in a.activations.iter().zip(&b.activations) {
                            assert!((a - b).abs() <= scale / 250.0, "{a} {b}");
                        }
                    }
                }
            }
        }
        let missing = exact.record("mlp_post_act", 256).unwrap_err();
        assert!(missing.is_not_found() && exact.record("nothing", 0).unwrap_err().is_not_found());
    }
}

#[test]
fn a_damaged_layers_file_is_an_error_and_never_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    let (model, tokenizer) = (model(), Tokenizer::gpt2());
    let text = [text(folder.path(), 6)];
    let collation = collation(&model, &tokenizer, &text, (1, 2), folder.path().join("summaries"));
    collation.run(None, &()).unwrap();
    let out = folder.path().join("out");
    write_out(&collation.summaries.folder(), &out, &tokenizer);
    let whole = fs::read(out.join("u8/0.records")).unwrap();
    let mut refused = 0;
    for (i, at) in (0..whole.len()).step_by(whole.len() / 700).enumerate() {
        let mut damaged = whole.clone();
        match i % 2 {
            0 => damaged[at] ^= 0xff,
            _ => damaged.truncate(at),
        }
        match LayerFile::from_bytes("some.records", damaged.into()) {
            Err(error) => {
                assert!(error.to_string().starts_with("some.records is damaged"), "{error}");
                refused += 1;
            }
            Ok(file) => (0..256).for_each(|unit| drop(file.record("mlp_post_act", unit))),
        }
    }
    assert!(refused >= 350, "{refused}");
    let summary = fs::read_dir(collation.summaries.folder()).unwrap().next().unwrap().unwrap().path();
    let whole = fs::read(&summary).unwrap();
    for at in (0..whole.len()).step_by(whole.len() / 60) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x55;
        fs::write(&summary, damaged).unwrap();
        let message = tdb_collate::Summary::read(&summary).unwrap_err().to_string();
        assert!(message.contains("is damaged or no summary"), "{message}");
    }
}

#[test]
fn other_collations_and_missing_shards_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (model, tokenizer) = (model(), Tokenizer::gpt2());
    let text = [text(folder.path(), 6)];
    let mut collation = collation(&model, &tokenizer, &text, (3, 2), folder.path().join("summaries"));
    let merge = |folder: &std::path::Path| Parts::find(&folder.into()).map(|_| ()).unwrap_err().to_string();
    assert!(merge(folder.path()).ends_with("there are no summaries in this folder"));
    collation.run(Some(1), &()).unwrap();
    let message = merge(&collation.summaries.folder());
    assert!(message.ends_with("of layers 0 to 1, these shards are missing: 0/3, 2/3"), "{message}");
    collation.plan.sizes.top = 3;
    let message = collation.run(None, &()).unwrap_err().to_string();
    assert!(message.contains("sizes is {\"top\":4"), "{message}");
    assert!(message.contains("not of the same collation"), "{message}");

    struct Cancelled;
    impl Watch for Cancelled {
        fn is_cancelled(&self) -> bool {
            true
        }
    }
    collation.plan.sizes.top = 4;
    let message = collation.run(None, &Cancelled).unwrap_err().to_string();
    assert!(message.starts_with("stopped; "), "{message}");
}

#[test]
fn a_summary_that_is_there_twice_or_under_a_wrong_name_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (model, tokenizer) = (model(), Tokenizer::gpt2());
    let text = [text(folder.path(), 6)];
    let collation = collation(&model, &tokenizer, &text, (2, 2), folder.path().join("summaries"));
    collation.run(None, &()).unwrap();
    let [first, second] = [0, 1].map(|shard| collation.summaries.place(&collation.units(Some(shard))[0].file()));
    let copy = folder.path().join("summaries/copy.summary");
    fs::copy(&second, &copy).unwrap();
    let message = Parts::find(&collation.summaries).map(|_| ()).unwrap_err().to_string();
    for name in [&copy, &second] {
        assert!(message.contains(&name.display().to_string()), "{message}");
    }
    assert!(message.contains("both cover shard 1/2 of layers 0 to 1, which would be counted twice"), "{message}");
    fs::remove_file(&copy).unwrap();
    fs::copy(&first, &second).unwrap();
    let message = Parts::find(&collation.summaries).unwrap().merge(&(0..2)).unwrap_err().to_string();
    for name in [&first, &second] {
        assert!(message.contains(&*name.file_name().unwrap().to_string_lossy()), "{message}");
    }
    let message = Parts::of(&collation).and_then(|parts| parts.merge(&(0..2))).unwrap_err().to_string();
    assert!(message.contains("remove it, and the unit of its name is made anew"), "{message}");
    // Each says what it covers of the eight documents (one of the seven has an empty line).
    let covers = tdb_collate::Summary::read_head(&first).unwrap().covers;
    assert_eq!((covers[0].first, covers[0].step, covers[0].end), (0, 2, 8));
}

#[test]
fn layers_that_no_unit_has_or_that_are_otherwise_divided_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (model, tokenizer) = (model(), Tokenizer::gpt2());
    let text = [text(folder.path(), 6)];
    let mut collation = collation(&model, &tokenizer, &text, (1, 1), folder.path().join("summaries"));
    collation.layers = split_layers(1..2, 2);
    collation.run(None, &()).unwrap();
    let there = collation.units(None)[0].file();
    assert_eq!(Parts::of(&collation).unwrap().layers(), split_layers(1..2, 2));
    // Other layers may be in the making meanwhile.
    collation.plan.shards = 2;
    collation.summaries = folder.path().join("other").as_path().into();
    collation.run(None, &()).unwrap();
    collation.layers = split_layers(0..1, 2);
    collation.run(Some(1), &()).unwrap();
    collation.layers = split_layers(1..2, 2);
    assert_eq!(Parts::of(&collation).unwrap().layers(), split_layers(1..2, 2));
    collation.plan.shards = 1;
    collation.summaries = folder.path().join("summaries").as_path().into();
    collation.layers = vec![0..1, 1..2];
    let message = Parts::of(&collation).map(|_| ()).unwrap_err().to_string();
    assert!(message.ends_with(&format!("layer 0 is in no summary; beside it are {there}")), "{message}");
    collation.layers = split_layers(0..2, 2);
    let message = collation.run(None, &()).unwrap_err().to_string();
    assert!(message.contains(&there) && message.contains("layers 1..2 are together in one and 0..2"), "{message}");
}

#[test]
fn a_unit_is_not_written_beside_another_collation_or_of_a_text_that_changed() {
    let folder = tempfile::tempdir().unwrap();
    let (model, tokenizer) = (model(), Tokenizer::gpt2());
    let text = [text(folder.path(), 6)];
    let mut one = collation(&model, &tokenizer, &text, (2, 2), folder.path().join("summaries"));
    // Both look into an empty folder first.
    assert!(one.finished().unwrap().is_empty());
    let mut other = collation(&model, &tokenizer, &text, (2, 2), folder.path().join("summaries"));
    other.plan.sizes.top = 3;
    assert!(other.finished().unwrap().is_empty());
    one.make(&one.units(None)[0], &()).unwrap();
    let message = other.make(&other.units(None)[0], &()).unwrap_err().to_string();
    let there = one.units(None)[0].file();
    assert!(message.contains(&there) && message.contains("not of the same collation: sizes is"), "{message}");
    assert_eq!(one.summaries.list().unwrap(), [there]);

    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(7);
    fs::File::options().write(true).open(&text[0]).unwrap().set_modified(later).unwrap();
    let message = one.run(None, &()).unwrap_err().to_string();
    assert!(message.contains("text.txt: was changed while it was collated"), "{message}");
    assert_eq!(one.summaries.list().unwrap().len(), 1);
    one.versions = Versions::of(&text).unwrap();
    one.run(None, &()).unwrap();
    assert_eq!(one.summaries.list().unwrap().len(), 2);
}
