import { Worker } from 'node:worker_threads'

const isCheckout = /\.ts(\?|$)/.test(import.meta.url)

/** File and arguments by which Node.js starts a module, given without its extension: compiled in the package, source in a checkout. */
export const startable = (module: URL): { readonly file: URL; readonly argv: readonly string[] } =>
  isCheckout
    ? { file: new URL('./start-source.js', import.meta.url), argv: [`${module.href}.ts`] }
    : { file: new URL(`${module.href}.js`), argv: [] }

/** Starts a module, given without its extension, in a thread of its own. */
export const startThread = (module: URL, workerData: unknown): Worker => {
  const { file, argv } = startable(module)
  return new Worker(file, { workerData, argv: [...argv], execArgv: [] })
}
