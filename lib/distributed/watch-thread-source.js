// Starts watch-thread.ts in a checkout, because a thread does not inherit the hooks with which its parent reads TypeScript.
import { tsImport } from 'tsx/esm/api'

await tsImport('./watch-thread.ts', import.meta.url)
