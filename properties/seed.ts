import fc from 'fast-check'

// Every run draws the same values; `PROPERTY_SEED` draws others. A failure prints the seed and the path to replay it. This is a
// file of the tests, not of the set-up: mocha loads those as modules of another kind, which have a fast-check of their own.
fc.configureGlobal({ seed: Number(process.env.PROPERTY_SEED ?? 20) })
