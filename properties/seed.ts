import fc from 'fast-check'

// Every run samples the same values; `PROPERTY_SEED` selects others. A failure prints seed and path, which replay the case. Loaded
// by mocha's `file` option: modules loaded by `import` would configure a second instance of fast-check.
fc.configureGlobal({ seed: Number(process.env.PROPERTY_SEED ?? 20) })
