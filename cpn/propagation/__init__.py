"""From CAMs to pseudo labels: dense CRF, AffinityNet, IRN and their random walks."""
