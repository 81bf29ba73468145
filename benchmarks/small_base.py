"""The smallest base that goes through all stages, for sweeps that are really run: YAML for a search space."""

BASE = """\
base:
  preset: [official, scenes]
  data: {scenes: {train: 16, val: 6, seed: 3}}
  patches: {draw: bernoulli}
  network: {weights: null}
  train: {epochs: 2, batch_size: 4}
  cam: {scales: [1.0]}
  affinity: {epochs: 1, batch_size: 4}
  random_walk: {radius: 3}
  deeplab: {iterations: 4, batch_size: 4, width: 8, scales: [1.0]}
"""
