"""The reference pages of the site, written from the code that they describe: nobody keeps them up by hand."""
