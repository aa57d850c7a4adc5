const setupCommand = import.meta.url.endsWith('.ts') ? 'npm run setup' : 'npx internvl setup' // a checkout has no built command line

/** Shell command that sets up the native engine. */
export const setupHint = setupCommand

/** Shell command that builds the native engine again. */
export const forceSetupHint = setupCommand.startsWith('npm run') ? `${setupCommand} -- --force` : `${setupCommand} --force`
