/** The command that sets up or mends the native engine. A checkout has no built command line, so it goes through npm's script. */
export const setupHint = import.meta.url.endsWith('.ts') ? 'npm run setup --' : 'npx internvl setup'
