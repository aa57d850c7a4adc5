import { Command } from 'commander'
import { type HubFlags, withHubOptions, withHubView } from '../common.js'

const download = async (name: string, flags: HubFlags): Promise<void> => {
  const { snapshotDownload } = await import('../../hub/snapshot.js') // the hub's package takes a while to load: not for `--help`
  const { folder } = await withHubView(name, flags, snapshotDownload)
  process.stdout.write(`${folder}\n`)
}

/** `internvl download`: a repository of the hub into the cache; its folder alone on standard output. */
export const downloadCommand = (): Command =>
  withHubOptions(new Command('download'))
    .description('download a checkpoint of the hub into the cache that Python shares, and print its folder')
    .argument('<org/name>', 'the repository')
    .addHelpText('after', '\nExample:\n  internvl download OpenGVLab/InternVL3-1B-hf')
    .action(download)
