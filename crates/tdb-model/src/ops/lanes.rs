//! Vectors of f32 of each processor, and which of them the one at hand has.
//!
//! `unsafe` because vector instructions need raw pointers and a processor that has them: [`Instructions`] are only had
//! from a check.

#![allow(unsafe_code, reason = "vector instructions, behind a check that the processor has them")]

#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::{
    float32x4_t, vadd_f32, vdupq_n_f32, vfmaq_f32, vget_high_f32, vget_lane_f32, vget_low_f32, vld1q_f32, vpadd_f32,
    vst1q_f32,
};
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    __m256, __m512, _MM_HINT_T0, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32, _mm_movehl_ps, _mm_prefetch, _mm_shuffle_ps,
    _mm256_add_ps, _mm256_castps256_ps128, _mm256_extractf128_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps,
    _mm256_setzero_ps, _mm256_storeu_ps, _mm512_castps512_ps256, _mm512_extractf32x8_ps, _mm512_fmadd_ps,
    _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
};

/// Vector instructions that the processor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Instructions {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl Instructions {
    /// All that the processor has, the widest first.
    #[cfg(target_arch = "x86_64")]
    pub fn all() -> &'static [Self] {
        let avx512 = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq");
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        match (avx512, avx2) {
            (true, true) => &[Self::Avx512, Self::Avx2],
            (true, false) => &[Self::Avx512],
            (false, true) => &[Self::Avx2],
            (false, false) => &[],
        }
    }

    /// All that the processor has.
    #[cfg(target_arch = "aarch64")]
    pub fn all() -> &'static [Self] {
        if std::arch::is_aarch64_feature_detected!("neon") { &[Self::Neon] } else { &[] }
    }

    /// The widest that the processor has.
    pub fn best() -> Option<Self> {
        Self::all().first().copied()
    }
}

/// A vector of f32. Each function needs the instructions of its type; all are inlined into code compiled for them.
pub(super) trait Lanes: Copy {
    const N: usize;
    unsafe fn zero() -> Self;
    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(at: *const f32) -> Self;
    unsafe fn store(self, at: *mut f32);
    /// `self + a b`, rounded once.
    unsafe fn add_product(self, a: Self, b: Self) -> Self;
    /// Halves added to halves.
    unsafe fn sum(self) -> f32;
    /// Brings what lies there into the cache; any address will do. Does nothing on Arm, where stable Rust has no such
    /// instruction.
    #[inline(always)]
    unsafe fn prefetch(at: *const f32) {
        #[cfg(target_arch = "x86_64")]
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(at.cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = at;
    }
}

#[cfg(target_arch = "x86_64")]
impl Lanes for __m512 {
    const N: usize = 16;

    #[inline(always)]
    unsafe fn zero() -> Self {
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load(at: *const f32) -> Self {
        unsafe { _mm512_loadu_ps(at) }
    }

    #[inline(always)]
    unsafe fn store(self, at: *mut f32) {
        unsafe { _mm512_storeu_ps(at, self) }
    }

    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        unsafe { _mm512_fmadd_ps(a, b, self) }
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        unsafe { _mm256_add_ps(_mm512_castps512_ps256(self), _mm512_extractf32x8_ps::<1>(self)).sum() }
    }
}

#[cfg(target_arch = "x86_64")]
impl Lanes for __m256 {
    const N: usize = 8;

    #[inline(always)]
    unsafe fn zero() -> Self {
        unsafe { _mm256_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        unsafe { _mm256_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load(at: *const f32) -> Self {
        unsafe { _mm256_loadu_ps(at) }
    }

    #[inline(always)]
    unsafe fn store(self, at: *mut f32) {
        unsafe { _mm256_storeu_ps(at, self) }
    }

    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        unsafe { _mm256_fmadd_ps(a, b, self) }
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        unsafe {
            let half = _mm_add_ps(_mm256_castps256_ps128(self), _mm256_extractf128_ps::<1>(self));
            let pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
            _mm_cvtss_f32(_mm_add_ss(pair, _mm_shuffle_ps::<1>(pair, pair)))
        }
    }
}

#[cfg(target_arch = "aarch64")]
impl Lanes for float32x4_t {
    const N: usize = 4;

    #[inline(always)]
    unsafe fn zero() -> Self {
        unsafe { vdupq_n_f32(0.0) }
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        unsafe { vdupq_n_f32(x) }
    }

    #[inline(always)]
    unsafe fn load(at: *const f32) -> Self {
        unsafe { vld1q_f32(at) }
    }

    #[inline(always)]
    unsafe fn store(self, at: *mut f32) {
        unsafe { vst1q_f32(at, self) }
    }

    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        unsafe { vfmaq_f32(self, a, b) }
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        unsafe {
            let pair = vadd_f32(vget_low_f32(self), vget_high_f32(self));
            vget_lane_f32::<0>(vpadd_f32(pair, pair))
        }
    }
}
