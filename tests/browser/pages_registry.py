"""The scripted models that the pages are tested with: what they say does not name them."""

from __future__ import annotations

MODELS = ("alpha", "beta", "gamma", "reader-a", "reader-b", "hearer")

REGISTRY = """
[profiles.demo]
models = ["alpha", "beta", "gamma", "reader-a", "reader-b", "hearer"]

[capabilities.text-generation]
input = "text"
instruction = "Answer the request."
judge = "longest"

[capabilities."image-to-text/ocr"]
input = "image"
instruction = "Read the text in the picture."
judge = "longest"

[capabilities.automatic-speech-recognition]
input = "audio"
instruction = "Write down what is said."
judge = "longest"

[judges.longest]
method = "scripted"

[models.alpha]
capability = "text-generation"
backend = "scripted"
priority = 1
params = { answer = "The river Seine flows through Paris.", rules = [
  { match = "<script>", answer = "<script>document.title = 'broken into'</script><img src=x onerror=\\"document.title = 'broken into'\\">" },
  { match = "one fails", fail = "input" }] }

[models.beta]
capability = "text-generation"
backend = "scripted"
priority = 2
params = { answer = "The river Seine flows through Paris and Rouen to the sea." }

[models.gamma]
capability = "text-generation"
backend = "scripted"
priority = 3
params = { answer = "A river Thames flows through Paris." }

[models.reader-a]
capability = "image-to-text/ocr"
backend = "scripted"
params = { answer = "x7Kq2" }

[models.reader-b]
capability = "image-to-text/ocr"
backend = "scripted"
params = { answer = "x7Kg2b" }

[models.hearer]
capability = "automatic-speech-recognition"
backend = "scripted"
params = { answer = "good morning" }
"""
