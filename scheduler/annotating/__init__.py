"""Own annotation: people score items blind, by named criteria; their scores train reward models.

`criteria` says what is asked, `groups` reads what is shown, `blind` how it is shown and what comes back, `agreement`
measures whether two people mean the same, `standing` reports it, `exporting` writes the paper's format. The rows are
`db.annotations`. A page and the command line call the same functions.
"""
