"""Where figures about models come from: HuggingGPT's list, a model's own folder, a hub. `db.metadata` keeps them."""
