use super::*;
use crate::Isa;

fn sampler(options: SamplingOptions, vocab: usize) -> Sampler {
    Sampler::new(options, vocab, false, Rng::new(0)).unwrap()
}

fn draw(s: &mut Sampler, logits: &[f32]) -> u32 {
    let k = Kernels::new(Isa::Scalar).unwrap();
    s.sample(&k, &[], logits, logits.len(), None).unwrap()
}

#[test]
fn greedy_takes_the_lowest_id_of_the_highest() {
    let mut s = sampler(SamplingOptions::greedy(), 5);
    assert_eq!(draw(&mut s, &[0.0, 3.0, -1.0, 3.0, 2.0]), 1);
}

#[test]
fn draws_have_the_probabilities_of_the_softmax() {
    let logits = [1.0f32, 0.0, 2.0, -1.0];
    let options = SamplingOptions { top_k: 0, top_p: 1.0, temperature: 0.7, ..Default::default() };
    let mut s = sampler(options, 4);
    let mut counts = [0u32; 4];
    let n = 200_000;
    for _ in 0..n {
        counts[draw(&mut s, &logits) as usize] += 1;
    }
    let weights = logits.map(|l| (l as f64 / 0.7).exp());
    let total: f64 = weights.iter().sum();
    for (count, w) in counts.iter().zip(weights) {
        let p = w / total;
        let sigma = (p * (1.0 - p) / n as f64).sqrt();
        assert!((*count as f64 / n as f64 - p).abs() < 5.0 * sigma, "{counts:?}");
    }
}

#[test]
fn top_k_top_p_and_min_p_keep_the_likeliest() {
    // Probabilities 0.5, 0.3, 0.15, 0.05.
    let logits = [0.5f32, 0.3, 0.15, 0.05].map(f32::ln);
    for (options, allowed) in [
        (SamplingOptions { top_k: 2, top_p: 1.0, ..Default::default() }, 2),
        (SamplingOptions { top_k: 0, top_p: 0.79, ..Default::default() }, 2),
        (SamplingOptions { top_k: 0, top_p: 0.81, ..Default::default() }, 3),
        (SamplingOptions { top_k: 0, top_p: 1.0, min_p: 0.25, ..Default::default() }, 3),
        (SamplingOptions { top_k: 0, top_p: 0.01, ..Default::default() }, 1),
    ] {
        let mut s = sampler(options.clone(), 4);
        let mut seen = [false; 4];
        for _ in 0..2000 {
            seen[draw(&mut s, &logits) as usize] = true;
        }
        let expected: Vec<bool> = (0..4).map(|i| i < allowed).collect();
        assert_eq!(seen.to_vec(), expected, "{options:?}");
    }
}

#[test]
fn penalties_bias_and_hook_change_the_choice() {
    let k = Kernels::new(Isa::Scalar).unwrap();
    let logits = [2.0f32, 1.9, -1.0];
    let pick = |options: SamplingOptions, tokens: &[u32]| {
        let mut s = Sampler::new(options, 3, false, Rng::new(0)).unwrap();
        s.sample(&k, tokens, &logits, 3, None).unwrap()
    };
    let greedy = SamplingOptions::greedy;
    assert_eq!(pick(greedy(), &[0]), 0);
    assert_eq!(pick(SamplingOptions { repetition_penalty: 1.1, ..greedy() }, &[0]), 1);
    assert_eq!(pick(SamplingOptions { repetition_penalty: 1.1, ..greedy() }, &[0, 1]), 0);
    assert_eq!(pick(SamplingOptions { presence_penalty: 0.2, ..greedy() }, &[0]), 1);
    assert_eq!(pick(SamplingOptions { frequency_penalty: 0.06, ..greedy() }, &[0]), 0);
    assert_eq!(pick(SamplingOptions { frequency_penalty: 0.06, ..greedy() }, &[0, 0]), 1);
    assert_eq!(pick(SamplingOptions { logit_bias: vec![(2, 5.0)], ..greedy() }, &[]), 2);
    assert_eq!(pick(SamplingOptions { logit_bias: vec![(0, f32::NEG_INFINITY)], ..greedy() }, &[]), 1);
    let mut s = Sampler::new(greedy(), 3, true, Rng::new(0)).unwrap();
    let mut hook = |tokens: &[u32], l: &mut [f32]| l[tokens[0] as usize] = 9.0;
    assert_eq!(s.sample(&k, &[2], &logits, 3, Some(&mut hook)).unwrap(), 2);
}

#[test]
fn the_lowest_temperatures_are_as_good_as_none() {
    for temperature in [1e-30, 1e-38, 1e-40, f32::from_bits(1)] {
        for top_k in [0, 3] {
            let mut s = sampler(SamplingOptions { temperature, top_k, ..Default::default() }, 4);
            for _ in 0..100 {
                assert_eq!(draw(&mut s, &[1.0, 4.0, 3.0, 2.0]), 1, "{temperature:e}, top-k {top_k}");
                assert!(s.candidates.iter().all(|c| c.value.is_finite()), "{:?}", s.candidates);
            }
        }
    }
}

#[test]
fn what_is_forbidden_is_no_candidate() {
    // Sums of weights this far apart depend on their order, so that comparing with their total excludes nothing.
    let mut rng = Rng::new(11);
    for _ in 0..50 {
        let logits: Vec<f32> = (0..900)
            .map(|i| if i % 3 == 0 { f32::NEG_INFINITY } else { -60.0 * rng.uniform() as f32 })
            .collect();
        for top_k in [0, 899] {
            let mut s = sampler(SamplingOptions { top_k, top_p: 1.0, ..Default::default() }, 900);
            draw(&mut s, &logits);
            assert!(!s.candidates.is_empty());
            assert!(s.candidates.iter().all(|c| c.id % 3 != 0), "top-k {top_k}");
        }
    }
}

#[test]
fn top_p_of_a_whole_vocabulary_keeps_what_sorting_all_of_it_does() {
    let mut rng = Rng::new(3);
    for (spread, top_p) in [(30.0, 0.95), (3.0, 0.95), (0.0, 0.5), (30.0, 0.999_999), (8.0, 0.3)] {
        let logits: Vec<f32> = (0..5000).map(|_| (spread * rng.uniform()) as f32).collect();
        let mut s = sampler(SamplingOptions { top_k: 0, top_p, ..Default::default() }, 5000);
        draw(&mut s, &logits);
        let mut all: Vec<f64> = logits.iter().map(|&l| (l as f64).exp()).collect();
        all.sort_unstable_by(|a, b| b.total_cmp(a));
        let enough = top_p as f64 * all.iter().sum::<f64>();
        let mut sum = 0.0;
        let expected = all.iter().take_while(|w| (sum < enough, sum += *w).0).count();
        let kept = s.candidates.len();
        assert!(kept.abs_diff(expected) <= 1, "{spread} {top_p}: {kept}, expected {expected}");
    }
}

#[test]
fn ids_without_a_piece_and_nan_are_never_chosen() {
    let k = Kernels::new(Isa::Scalar).unwrap();
    let mut s = sampler(SamplingOptions::greedy(), 3);
    assert_eq!(s.sample(&k, &[], &[0.0, 1.0, 9.0], 2, None).unwrap(), 1);
    // Nor are they among the likeliest, though their share of the probability is theirs.
    let mut top = TopLogProbs::new(3).unwrap();
    let own = top.of(&k, &[0.0, 1.0, 9.0], 2, 1).unwrap();
    assert_eq!(top.top.iter().map(|t| t.token).collect::<Vec<_>>(), [1, 0]);
    assert!((own - (1.0 - 9.0)).abs() < 1e-3, "{own}");
    let e = s.sample(&k, &[7, 8], &[0.0, f32::NAN, 9.0], 3, None);
    assert!(matches!(e, Err(Error::NanLogits { token: 1, position: 2 })));
}

#[test]
fn options_out_of_range_are_refused_by_name() {
    let nan = f32::NAN;
    for (options, name) in [
        (SamplingOptions { temperature: nan, ..Default::default() }, "temperature"),
        (SamplingOptions { temperature: -1.0, ..Default::default() }, "temperature"),
        (SamplingOptions { top_p: 0.0, ..Default::default() }, "top_p"),
        (SamplingOptions { top_p: nan, ..Default::default() }, "top_p"),
        (SamplingOptions { min_p: 1.5, ..Default::default() }, "min_p"),
        (SamplingOptions { repetition_penalty: 0.0, ..Default::default() }, "repetition_penalty"),
        (SamplingOptions { presence_penalty: nan, ..Default::default() }, "presence_penalty"),
        (SamplingOptions { frequency_penalty: f32::INFINITY, ..Default::default() }, "frequency_penalty"),
        (SamplingOptions { logit_bias: vec![(0, nan)], ..Default::default() }, "logit_bias"),
    ] {
        match Sampler::new(options, 4, false, Rng::new(0)).err() {
            Some(Error::InvalidOption { option, .. }) => assert_eq!(option, name),
            other => panic!("{name}: {other:?}"),
        }
    }
    let e = Sampler::new(
        SamplingOptions { logit_bias: vec![(4, 0.0)], ..Default::default() },
        4,
        false,
        Rng::new(0),
    );
    assert!(matches!(e.err(), Some(Error::TokenOutOfRange { token: 4, .. })));
}
