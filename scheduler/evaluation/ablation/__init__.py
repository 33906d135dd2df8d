"""The paper's ablation: what similarity, a language model, and both together add to one good model."""
