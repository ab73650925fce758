"""Ray and Arrow meet the detector."""
