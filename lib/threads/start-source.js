// Starts the TypeScript module of its argument in a checkout, because a thread or process does not inherit the hooks with which its parent reads TypeScript.
import { tsImport } from 'tsx/esm/api'

await tsImport(process.argv[2], import.meta.url)
