const run = import.meta.url.endsWith('.ts') ? 'npm run setup' : 'npx internvl setup' // a checkout has no built command line

/** The command that sets up the native engine. */
export const setupHint = run

/** The command that makes the native engine anew. */
export const mendHint = run.startsWith('npm run') ? `${run} -- --force` : `${run} --force`
