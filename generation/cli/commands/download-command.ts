import { Command } from 'commander'
import { type HubFlags, withHubOptions, withHubProgress } from '../common.js'

const download = async (name: string, flags: HubFlags): Promise<void> => {
  const { snapshotDownload } = await import('../../hub/snapshot.js') // loaded here because the package of the hub loads slowly
  const { folder } = await withHubProgress(name, flags, snapshotDownload)
  process.stdout.write(`${folder}\n`)
}

/** `internvl download`: downloads a repository of the hub into the cache. Standard output holds its folder alone. */
export const downloadCommand = (): Command =>
  withHubOptions(new Command('download'))
    .description('download a checkpoint from the hub into the cache that Python shares, and print its folder')
    .argument('<org/name>', 'repository on the hub')
    .addHelpText('after', '\nExample:\n  internvl download OpenGVLab/InternVL3-1B-hf')
    .action(download)
